//! A log line as data, for backends.

use std::time::{SystemTime, UNIX_EPOCH};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use crate::text::cut_bytes;
use crate::trace::current::{self, Current};

/// One log line, with the span it was written in.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When: milliseconds since 1970.
    pub time: u64,
    /// How bad.
    pub level: Level,
    /// Which part of the program.
    pub target: String,
    /// The text.
    pub message: String,
    /// Facts beside the text.
    pub key_values: Vec<(String, String)>,
    /// The span it was written in.
    pub span: Option<Current>,
}

impl LogLine {
    /// The line that `record` is, in the span that is current.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut pairs = Pairs(Vec::new());
        // Collecting into memory cannot fail.
        let _ = record.key_values().visit(&mut pairs);
        Self {
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            level: record.level(),
            target: record.target().to_owned(),
            message: cut_bytes(record.args().to_string(), MAX_MESSAGE),
            key_values: pairs.0,
            span: current::span(),
        }
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let pairs = self.key_values.iter().map(|(key, value)| key.len() + value.len());
        size_of::<Self>() + self.message.len() + self.target.len() + pairs.sum::<usize>()
    }
}

/// What a line may hold: lines wait in queues, and what they carry has to be bounded.
const MAX_MESSAGE: usize = 32 * 1024;
const MAX_VALUE: usize = 1024;

struct Pairs(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push((key.as_str().to_owned(), cut_bytes(value.to_string(), MAX_VALUE)));
        Ok(())
    }
}

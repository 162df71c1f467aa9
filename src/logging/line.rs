//! One log line as data, for the backends.

use std::time::{SystemTime, UNIX_EPOCH};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use crate::text::cut_bytes;
use crate::trace::current::{self, Current};

/// One log line, with the span it was written in.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// The time in milliseconds since 1970.
    pub time: u64,
    /// The severity.
    pub level: Level,
    /// The part of the program that wrote the line.
    pub target: String,
    /// The text of the line.
    pub message: String,
    /// The key-value pairs that belong to the line.
    pub key_values: Vec<(String, String)>,
    /// The span that was current when the line was written.
    pub span: Option<Current>,
}

impl LogLine {
    /// Copies `record`, and adds the time and the current span.
    pub fn from_record(record: &Record<'_>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut pairs = KeyValues(Vec::new());
        // `KeyValues` never returns an error.
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

    /// Returns the approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        let pairs = self.key_values.iter().map(|(key, value)| key.len() + value.len());
        size_of::<Self>() + self.message.len() + self.target.len() + pairs.sum::<usize>()
    }
}

/// The largest message, in bytes. Queued lines must not use unlimited memory.
const MAX_MESSAGE: usize = 32 * 1024;
/// The largest value of a key-value pair, in bytes.
const MAX_VALUE: usize = 1024;

struct KeyValues(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for KeyValues {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push((key.as_str().to_owned(), cut_bytes(value.to_string(), MAX_VALUE)));
        Ok(())
    }
}

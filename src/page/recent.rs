//! The last requests, sampled or not, with their log lines.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::logging::LogLine;
use crate::trace::span::{Attribute, SpanData};
use crate::trace::{FinishedTrace, Value};

/// A bounded list of requests: so many, and so many bytes. The oldest makes room.
#[derive(Default)]
pub(super) struct Recent {
    kept: VecDeque<Request>,
    bytes: usize,
    finished: u64,
}

/// A request that was answered.
pub(super) struct Request {
    /// Counted from 1 since the start.
    pub(super) number: u64,
    pub(super) trace: Arc<FinishedTrace>,
    /// What was logged while it was answered.
    pub(super) lines: Vec<Arc<LogLine>>,
    size: usize,
}

const MOST: usize = 200;
const MOST_BYTES: usize = 8 * 1024 * 1024;

impl Recent {
    pub(super) fn push(&mut self, trace: Arc<FinishedTrace>, lines: Vec<Arc<LogLine>>) {
        self.finished += 1;
        let size = size_of_request(&trace, &lines);
        self.bytes += size;
        self.kept.push_back(Request { number: self.finished, trace, lines, size });
        while self.kept.len() > 1 && (self.kept.len() > MOST || self.bytes > MOST_BYTES) {
            self.bytes -= self.kept.pop_front().map_or(0, |gone| gone.size);
        }
    }

    /// The number of the last one; 0 before the first.
    pub(super) fn last_number(&self) -> u64 {
        self.finished
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Request> {
        self.kept.iter().rev()
    }
}

/// About how many bytes it takes to keep it.
fn size_of_request(trace: &FinishedTrace, lines: &[Arc<LogLine>]) -> usize {
    let pairs = |line: &LogLine| line.key_values.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let lines = lines.iter().map(|line| size_of::<LogLine>() + line.message.len() + line.target.len() + pairs(line));
    let spans = trace.spans.iter().map(size_of_span);
    size_of::<FinishedTrace>() + trace.trace_state.len() + lines.chain(spans).sum::<usize>()
}

fn size_of_span(span: &SpanData) -> usize {
    let events = span.events.iter().map(|event| size_of_attributes(&event.attributes) + event.name.len());
    let metadata = span.metadata.iter().map(|metadata| size_of_value(&metadata.value));
    size_of::<SpanData>()
        + span.name.len()
        + size_of_attributes(&span.attributes)
        + events.chain(metadata).sum::<usize>()
}

fn size_of_attributes(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|attribute| attribute.key.len() + size_of_value(&attribute.value)).sum()
}

fn size_of_value(value: &Value) -> usize {
    size_of::<Attribute>()
        + match value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Array(values) => values.iter().map(size_of_value).sum(),
            Value::Map(entries) => size_of_attributes(entries),
            Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::sample;

    #[test]
    fn only_so_many_and_so_many_bytes_are_kept() {
        let mut recent = Recent::default();
        for _ in 0..=MOST {
            recent.push(Arc::new(sample::trace()), Vec::new());
        }
        let numbers: Vec<_> = recent.newest_first().map(|request| request.number).collect();
        assert_eq!((numbers[0], numbers.len(), recent.last_number()), (201, MOST, 201));
        let mut large = sample::trace();
        large.spans[0].attributes.push(Attribute { key: "large".into(), value: "x".repeat(1024 * 1024).into() });
        let large = Arc::new(large);
        for _ in 0..20 {
            recent.push(Arc::clone(&large), Vec::new());
        }
        assert_eq!(recent.newest_first().count(), 7);
        assert!(recent.bytes <= MOST_BYTES);
        assert_eq!(recent.bytes, recent.kept.iter().map(|request| request.size).sum::<usize>());
    }
}

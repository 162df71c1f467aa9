//! The last requests, sampled or not, with their log lines.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::logging::LogLine;
use crate::trace::FinishedTrace;

/// A list of requests, bounded in number and in bytes. The oldest requests make room for new ones.
#[derive(Default)]
pub(super) struct Recent {
    kept: VecDeque<RecentRequest>,
    bytes: usize,
    finished: u64,
}

/// A finished request.
pub(super) struct RecentRequest {
    /// Number of the request, counted from 1 since the start.
    pub(super) number: u64,
    pub(super) trace: Arc<FinishedTrace>,
    /// Lines that were logged during the request.
    pub(super) lines: Vec<Arc<LogLine>>,
    /// Estimated size in memory.
    size: usize,
}

const MAX_REQUESTS: usize = 200;
const MAX_BYTES: usize = 4 * 1024 * 1024;

impl Recent {
    pub(super) fn push(&mut self, trace: Arc<FinishedTrace>, size: usize, lines: Vec<Arc<LogLine>>) {
        self.finished += 1;
        let size = size + lines.iter().map(|line| line.size()).sum::<usize>();
        self.bytes += size;
        self.kept.push_back(RecentRequest { number: self.finished, trace, lines, size });
        while self.kept.len() > 1 && (self.kept.len() > MAX_REQUESTS || self.bytes > MAX_BYTES) {
            self.bytes -= self.kept.pop_front().map_or(0, |gone| gone.size);
        }
    }

    /// Number of the last request; 0 before the first.
    pub(super) fn last_number(&self) -> u64 {
        self.finished
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &RecentRequest> {
        self.kept.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::sample;
    use crate::trace::span::Attribute;

    #[test]
    fn only_so_many_and_so_many_bytes_are_kept() {
        let mut recent = Recent::default();
        for _ in 0..=MAX_REQUESTS {
            let trace = sample::trace();
            recent.push(Arc::new(trace.clone()), trace.size(), Vec::new());
        }
        let numbers: Vec<_> = recent.newest_first().map(|request| request.number).collect();
        assert_eq!((numbers[0], numbers.len(), recent.last_number()), (201, MAX_REQUESTS, 201));
        let mut large = sample::trace();
        large.spans[0].attributes.push(Attribute { key: "large".into(), value: "x".repeat(512 * 1024).into() });
        let large = Arc::new(large);
        for _ in 0..20 {
            recent.push(Arc::clone(&large), large.size(), Vec::new());
        }
        assert_eq!(recent.newest_first().count(), 7);
        assert!(recent.bytes <= MAX_BYTES);
        assert_eq!(recent.bytes, recent.kept.iter().map(|request| request.size).sum::<usize>());
    }
}

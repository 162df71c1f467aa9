//! The last traces, sampled or not.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::trace::FinishedTrace;

/// A bounded list of traces. Each is bounded too: heads of requests are, and so are the attributes of a span.
#[derive(Default)]
pub(super) struct Recent(VecDeque<Arc<FinishedTrace>>);

const MOST: usize = 200;

impl Recent {
    pub(super) fn push(&mut self, trace: Arc<FinishedTrace>) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(trace);
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &FinishedTrace> {
        self.0.iter().rev().map(AsRef::as_ref)
    }
}

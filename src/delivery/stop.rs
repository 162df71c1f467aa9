//! Stop signal for the threads of a backend.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::stats::Totals;
use crate::sync::lock;

/// Stop signal for a worker and its background task.
#[derive(Default)]
pub struct Stop {
    state: Mutex<StopState>,
    wake: Condvar,
}

#[derive(Default)]
struct StopState {
    request: Option<StopRequest>,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StopRequest {
    pub(super) deadline: Instant,
    pub(super) reason: StopReason,
}

/// Reason for a worker to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StopReason {
    /// The program ends.
    Program,
    /// The backend was switched off. The worker first sends the queued items.
    Off {
        /// Counts before that.
        before: Totals,
    },
    /// The settings have changed. A batch that the worker cannot send goes to the next worker.
    Replaced,
}

impl Stop {
    /// Asks the worker to end by `deadline`. An earlier deadline is kept; the reason is replaced.
    pub(super) fn at(&self, deadline: Instant, reason: StopReason) {
        let mut state = lock(&self.state);
        let deadline = state.request.map_or(deadline, |before| before.deadline.min(deadline));
        state.request = Some(StopRequest { deadline, reason });
        self.wake.notify_all();
    }

    pub(super) fn request(&self) -> Option<StopRequest> {
        lock(&self.state).request
    }

    /// Records that the worker has ended.
    pub(super) fn ended(&self) {
        lock(&self.state).has_ended = true;
        self.wake.notify_all();
    }

    /// Returns the time until the deadline.
    pub(super) fn time_left(&self) -> Duration {
        self.request().map_or(Duration::ZERO, |request| request.deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for the end of the worker. Returns false if it has not ended at the time that `until`
    /// makes of the deadline. A later request may move the deadline forward.
    pub(super) fn wait_for_end(&self, until: impl Fn(Instant) -> Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            let left = state.request.map(|request| until(request.deadline).saturating_duration_since(Instant::now()));
            match left {
                _ if state.has_ended => return true,
                None | Some(Duration::ZERO) => return false,
                Some(left) => state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
    }

    /// Sleeps for `wait`. Returns true if a stop was requested before or meanwhile.
    pub fn interrupts(&self, wait: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(lock(&self.state), wait, |state| state.request.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.request.is_some()
    }
}

//! The state of a stand-in, whose changes a test can wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A state behind a lock, with a condition variable for waiting threads.
#[derive(Default)]
pub(crate) struct Watched<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state. To make a change that a test waits for, use [`Self::change`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, and wakes all waiting threads.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `enough` holds; `None` if it did not hold in time.
    pub(crate) fn wait(&self, timeout: Duration, enough: impl Fn(&T) -> bool) -> Option<MutexGuard<'_, T>> {
        let (state, late) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !enough(state))
            .unwrap_or_else(PoisonError::into_inner);
        (!late.timed_out()).then_some(state)
    }
}

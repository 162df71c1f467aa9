//! Threads that take over a request.

use std::sync::{Arc, Mutex};
use std::thread;

use crate::sync::lock;

/// Runs `work` with `value` on a new thread. Returns `value` if the system has no thread left: a
/// request must not be dropped by accident, see [`super::send`].
pub(super) fn spawn_with<T: Send + 'static>(name: &str, value: T, work: impl FnOnce(T) + Send + 'static) -> Option<T> {
    let slot = Arc::new(Mutex::new(Some(value)));
    let for_thread = Arc::clone(&slot);
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let value = lock(&for_thread).take();
        value.map(work);
    });
    if started.is_ok() { None } else { lock(&slot).take() }
}

//! Handing a request to a thread, without losing it when there is none.

use std::sync::{Arc, Mutex};
use std::thread;

use tiny_http::Request;

use crate::sync::lock;

/// Starts a thread with `request`; gives the request back if the system has no thread. A request must not be dropped by accident:
/// tiny_http would read its body, however long that takes.
pub(super) fn spawn_with_request(
    name: &str,
    request: Request,
    work: impl FnOnce(Request) + Send + 'static,
) -> Option<Request> {
    let slot = Arc::new(Mutex::new(Some(request)));
    let for_thread = Arc::clone(&slot);
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let request = lock(&for_thread).take();
        if let Some(request) = request {
            work(request);
        }
    });
    if started.is_ok() { None } else { lock(&slot).take() }
}

//! The panic hook: every panic is kept for its trace and logged as one line. Those inside tiny_http
//! are its own trouble, told apart by the file they come from.

use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::trace::exception::{Exception, keep_panic};

/// Keeps every panic for the trace it happened in, and logs it with the ids of its span.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let exception = Exception::from_panic(info);
        // tiny_http's connection threads panic when a client hangs up at the wrong moment. Nothing is lost by it.
        if exception.place.contains("/tiny_http-") {
            // In these files it is the thread that accepts: there was no descriptor or no thread left.
            if ["refined_tcp_stream", "task_pool"].iter().any(|file| exception.place.contains(file)) {
                ACCEPT_PANICKED.store(true, Ordering::Release);
            }
            CONNECTION_PANICS.fetch_add(1, Ordering::Relaxed);
            return log::debug!(target: "panic", "in a connection thread of tiny_http: {}", exception.message);
        }
        log::error!(target: "panic", "{} at {}", exception.message, exception.place);
        keep_panic(exception);
    }));
}

/// How many connection threads have panicked so far. Each may have left others without a thread.
pub(super) fn connection_panics() -> u64 {
    CONNECTION_PANICS.load(Ordering::Relaxed)
}

/// True if the thread that accepts connections has panicked: no more connections will be accepted.
pub(super) fn accept_panicked() -> bool {
    ACCEPT_PANICKED.load(Ordering::Acquire)
}

static ACCEPT_PANICKED: AtomicBool = AtomicBool::new(false);
static CONNECTION_PANICS: AtomicU64 = AtomicU64::new(0);

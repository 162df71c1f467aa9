//! What went wrong, in the words that every backend understands: a type, a message, a place.
//!
//! Two things end a request early: an error that a handler returns, and a panic. Both become an [`Exception`] on the
//! innermost span that was open at that moment, and both leave the application's own error in the answer untouched.

use std::cell::RefCell;
use std::error::Error;
use std::panic::{self, Location, PanicHookInfo};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::current;
use super::id::SpanId;

/// Something that ended a piece of work early.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exception {
    /// The Rust type of the error, or `panic`.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// `file:line:column` where it became an exception.
    pub place: String,
    /// The span that was innermost there.
    pub span: Option<SpanId>,
}

impl Exception {
    /// The exception that `error` is, at the place of the caller and in the span that is current there.
    #[track_caller]
    #[must_use]
    pub fn of<E: Error + ?Sized>(error: &E) -> Self {
        Self {
            kind: std::any::type_name::<E>().to_owned(),
            message: error.to_string(),
            place: Location::caller().to_string(),
            span: current::span().map(|current| current.span_id),
        }
    }
}

/// The panic that this thread is unwinding from, or unwound from last; taking it forgets it.
pub(super) fn take_panic() -> Option<Exception> {
    LAST_PANIC.take()
}

/// Keeps every panic for the trace it happened in, and logs it as one line with the ids of its span.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let exception = exception_of_panic(info);
        // tiny_http's connection threads panic when a client hangs up at the wrong moment. Nothing is lost by it.
        if exception.place.contains("/tiny_http-") {
            // Here it is the thread that accepts: there was no descriptor or no thread left.
            if ["refined_tcp_stream", "task_pool"].iter().any(|file| exception.place.contains(file)) {
                ACCEPT_PANICKED.store(true, Ordering::Release);
            }
            CONNECTION_PANICS.fetch_add(1, Ordering::Relaxed);
            return log::debug!(target: "panic", "in a connection thread of tiny_http: {}", exception.message);
        }
        log::error!(target: "panic", "{} at {}", exception.message, exception.place);
        LAST_PANIC.set(Some(exception));
    }));
}

/// How many connection threads have panicked so far. Each may have left others without a thread.
#[must_use]
pub fn connection_panics() -> u64 {
    CONNECTION_PANICS.load(Ordering::Relaxed)
}

/// Whether the thread that accepts connections has panicked, and none will be accepted any more.
#[must_use]
pub fn accept_panicked() -> bool {
    ACCEPT_PANICKED.load(Ordering::Acquire)
}

static ACCEPT_PANICKED: AtomicBool = AtomicBool::new(false);
static CONNECTION_PANICS: AtomicU64 = AtomicU64::new(0);

fn exception_of_panic(info: &PanicHookInfo<'_>) -> Exception {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    let message = text.unwrap_or("a panic without a text");
    Exception {
        kind: "panic".to_owned(),
        message: message.to_owned(),
        place: info.location().map(ToString::to_string).unwrap_or_default(),
        span: current::span().map(|current| current.span_id),
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Exception>> = const { RefCell::new(None) };
}

//! Errors and panics as data that every backend understands: a type, a message, a place.
//!
//! Two things end a request early: an error that a handler returns, and a panic. Both become an
//! [`Exception`] on the innermost span that was open at that moment. Neither changes the
//! application's own error response.

use std::cell::RefCell;
use std::error::Error;
use std::panic::{Location, PanicHookInfo};

use super::current;
use super::id::SpanId;

/// Error or panic that ended a piece of work early.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exception {
    /// Rust type of the error, or `panic`.
    pub kind: String,
    /// Text of the error or panic.
    pub message: String,
    /// `file:line:column` of the place where the error was recorded, or of the panic.
    pub place: String,
    /// Innermost span at that place.
    pub span: Option<SpanId>,
}

impl Exception {
    /// Describes `error`, with the place of the caller and the current span.
    #[track_caller]
    pub fn from_error<E: Error + ?Sized>(error: &E) -> Self {
        Self {
            kind: std::any::type_name::<E>().to_owned(),
            message: error.to_string(),
            place: Location::caller().to_string(),
            span: current::span().map(|current| current.span_id),
        }
    }

    /// Describes a panic, with the current span.
    pub fn from_panic(info: &PanicHookInfo<'_>) -> Self {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
        Self {
            kind: "panic".to_owned(),
            message: text.unwrap_or("a panic without a text").to_owned(),
            place: info.location().map(ToString::to_string).unwrap_or_default(),
            span: current::span().map(|current| current.span_id),
        }
    }
}

/// Takes the panic that this thread is unwinding from, or unwound from last.
pub(super) fn take_panic() -> Option<Exception> {
    LAST_PANIC.take()
}

/// Stores a panic for the trace of this thread. The panic hook calls it.
pub fn keep_panic(panic: Exception) {
    LAST_PANIC.set(Some(panic));
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Exception>> = const { RefCell::new(None) };
}

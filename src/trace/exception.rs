//! What went wrong, in the words that every backend understands: a type, a message, a place.
//!
//! Two things end a request early: an error that a handler returns, and a panic. Both become an [`Exception`] on the
//! innermost span that was open at that moment, and both leave the application's own error in the answer untouched.

use std::cell::RefCell;
use std::error::Error;
use std::panic::{Location, PanicHookInfo};

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

    /// The exception that a panic is, in the span that is current.
    #[must_use]
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

/// The panic that this thread is unwinding from, or unwound from last; taking it forgets it.
pub(super) fn take_panic() -> Option<Exception> {
    LAST_PANIC.take()
}

/// Keeps a panic for the trace that it happened in. The panic hook calls this.
pub fn keep_panic(panic: Exception) {
    LAST_PANIC.set(Some(panic));
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Exception>> = const { RefCell::new(None) };
}

//! The span that this thread is in. Handlers get their trace as an argument; only the logger and the panic hook, which
//! nobody passes anything, ask here.

use std::cell::Cell;

use super::context::TraceFlags;
use super::id::{SpanId, TraceId};

/// The ids that a log line carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Current {
    /// The trace.
    pub trace_id: TraceId,
    /// The innermost open span.
    pub span_id: SpanId,
    /// Whether the trace is sampled.
    pub flags: TraceFlags,
}

/// The span that this thread is in, if it is in one.
#[must_use]
pub fn span() -> Option<Current> {
    CURRENT.get()
}

/// Enters a span, or leaves all; answers what was current before, to be set again afterwards.
pub(super) fn replace(current: Option<Current>) -> Option<Current> {
    CURRENT.replace(current)
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

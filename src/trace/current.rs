//! Current span of the thread. Handlers get their trace as an argument; the logger and the panic
//! hook have no such argument and read it here.

use std::cell::Cell;

use super::context::TraceFlags;
use super::id::{SpanId, TraceId};

/// Ids that a log line carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Current {
    /// Id of the trace.
    pub trace_id: TraceId,
    /// Id of the innermost open span.
    pub span_id: SpanId,
    /// Flags of the trace.
    pub flags: TraceFlags,
}

/// Returns the current span of this thread, if there is one.
pub fn span() -> Option<Current> {
    CURRENT.get()
}

/// Sets the current span, or none. Returns the previous one, which the caller restores afterwards.
pub(super) fn replace(current: Option<Current>) -> Option<Current> {
    CURRENT.replace(current)
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

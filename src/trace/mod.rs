//! Stage 2: the request becomes spans.
//!
//! In: the trace headers of a request. Out: a [`FinishedTrace`], plain data that is independent of
//! any backend.
//!
//! Read in this order: [`id`] (one id, two spellings), [`context`] (the caller's trace),
//! [`sampler`] (which traces are sent), [`span`] (the data), [`request_trace`] (the guard that a
//! handler holds).

pub mod context;
pub mod current;
pub mod exception;
pub mod id;
pub mod request_trace;
pub mod sampler;
pub mod span;

pub use request_trace::{FinishedTrace, Incoming, RequestTrace, Span, Tracer};
pub use span::{Scope, Value};

pub(crate) mod sample;

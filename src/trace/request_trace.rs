//! All spans of one request, from its arrival to the end of its response.
//!
//! The request loop begins the trace and finishes it. A handler gets a `&RequestTrace` and opens
//! spans in it:
//!
//! ```
//! # use cruddur::trace::{RequestTrace, Scope};
//! const SCOPE: Scope = Scope::named("home.activities");
//! fn handler(trace: &RequestTrace<'_>) {
//!     let mut span = trace.span(SCOPE, "home-activities-mock-data");
//!     span.set_attribute("app.result_length", 3_usize);
//! } // the span ends here
//! ```
//!
//! A span is a guard: it ends when it is dropped, on every way out of the function. There is no
//! `end` to forget (the segment would never be sent) or to call twice (another span would be
//! closed), and no public way to open a second root (it would replace the first). Those three
//! mistakes cost the course's students their evenings.
//!
//! One thread writes all spans of a request, so no lock is needed.

mod tracer;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::Location;

use super::context::{Propagator, RemoteParent, TraceFlags, traceparent};
use super::current::{self, Current};
use super::exception::{Exception, take_panic};
use super::id::{Hex, SpanId, TraceId};
use super::sampler::{BackendDecision, Decision};
use super::span::{Limits, Metadata, Scope, SpanData, SpanKind, Status, Timestamp, Value};
pub use tracer::{Incoming, Tracer};

/// Trace of one request while it is served.
pub struct RequestTrace<'t> {
    tracer: &'t Tracer,
    arrived: Timestamp,
    trace_id: TraceId,
    root_id: SpanId,
    flags: TraceFlags,
    parent: Option<RemoteParent>,
    /// `Sampled=?` in `X-Amzn-Trace-Id`: the caller asks for our decision.
    asked: bool,
    /// `baggage` of the caller, for outgoing calls; empty if there was none.
    baggage: String,
    /// `None` if the trace is neither stored nor sent.
    recording: Option<Recording>,
    before: Option<Current>,
}

/// Spans and decisions of a trace that is recorded.
struct Recording {
    decision: Decision,
    backend_decisions: Vec<BackendDecision>,
    limits: Limits,
    /// Spans in the order they began, the SERVER span first.
    spans: RefCell<Vec<SpanData>>,
    /// Open spans below the root, outermost first: their places in `spans`, and the line that
    /// opened each.
    open: RefCell<Vec<(usize, &'static Location<'static>)>>,
    has_exception: Cell<bool>,
}

/// Open span. It ends when it is dropped.
#[must_use]
pub struct Span<'a> {
    trace: &'a RequestTrace<'a>,
    /// Place of the span in `spans`; `None` if the trace is not recorded.
    recorded: Option<(&'a Recording, usize)>,
    before: Option<Current>,
}

/// All spans of one finished request, with the sampling decisions.
#[derive(Clone, Debug)]
pub struct FinishedTrace {
    /// Id in every backend and every log line.
    pub trace_id: TraceId,
    /// `tracestate` of the caller; empty if there was none.
    pub trace_state: String,
    /// Flags that outgoing calls and the response carry.
    pub flags: TraceFlags,
    /// True if the parent of the first span is in another process.
    pub remote_parent: bool,
    /// Decision of the OpenTelemetry sampler.
    pub decision: Decision,
    /// Decisions of the backends' own samplers.
    pub backend_decisions: Vec<BackendDecision>,
    /// SERVER span first, then the others in the order they began.
    pub spans: Vec<SpanData>,
}

impl RequestTrace<'_> {
    /// Opens a span inside the innermost open one.
    #[track_caller]
    pub fn span(&self, scope: Scope, name: impl Into<Cow<'static, str>>) -> Span<'_> {
        self.open(scope, name.into(), SpanKind::Internal)
    }

    /// Opens a span for a call to another service, which carries [`Span::context_headers`].
    #[track_caller]
    pub fn client_span(&self, scope: Scope, name: impl Into<Cow<'static, str>>) -> Span<'_> {
        self.open(scope, name.into(), SpanKind::Client)
    }

    #[track_caller]
    fn open(&self, scope: Scope, name: Cow<'static, str>, kind: SpanKind) -> Span<'_> {
        let Some(recording) = &self.recording else {
            return Span { trace: self, recorded: None, before: current::span() };
        };
        let mut spans = recording.spans.borrow_mut();
        let mut open = recording.open.borrow_mut();
        let parent = open.last().map_or(self.root_id, |&(index, _)| spans[index].id);
        let id = self.tracer.ids.span_id();
        let index = spans.len();
        let span = SpanData::new(id, scope, name, kind, self.arrived.present());
        spans.push(SpanData { parent: Some(parent), ..span });
        open.push((index, Location::caller()));
        let before = current::replace(Some(Current { trace_id: self.trace_id, span_id: id, flags: self.flags }));
        Span { trace: self, recorded: Some((recording, index)), before }
    }

    /// Sets an attribute of the SERVER span.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.edit_root(|span, limits| span.set_attribute(Cow::Borrowed(key), value.into(), limits));
    }

    /// Marks the SERVER span as failed. Its attributes describe the failure.
    pub fn set_failed(&self) {
        self.edit_root(|span, _| {
            if !span.failed() {
                span.rare_mut().status = Status::Error(String::new());
            }
        });
    }

    /// Records an exception on the span in which it occurred, or on the SERVER span if that is
    /// unknown.
    pub fn record_exception(&self, exception: &Exception) {
        let Some(recording) = &self.recording else { return };
        let index = recording.spans.borrow().iter().position(|span| Some(span.id) == exception.span);
        recording.record_exception(index.unwrap_or(0), exception, self.arrived.present());
    }

    /// Records the panic that this thread has just recovered from, unless a span recorded it when
    /// it was dropped.
    pub fn record_panic(&self) {
        if let Some(exception) = take_panic()
            && self.recording.as_ref().is_some_and(|recording| !recording.has_exception.get())
        {
            self.record_exception(&exception);
        }
    }

    /// Id of the trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Value of `traceparent` in the response: this trace, with the SERVER span as the parent.
    pub fn traceparent(&self) -> Hex<55> {
        traceparent(self.trace_id, self.root_id, self.flags)
    }

    /// `tracestate` of the caller; empty if there was none.
    pub fn trace_state(&self) -> &str {
        self.parent.as_ref().map_or("", |parent| &parent.trace_state)
    }

    /// Field `Sampled` of `X-Amzn-Trace-Id` in the response: the decision, if the caller asked for
    /// it; else empty.
    pub fn xray_answer(&self) -> &'static str {
        if self.asked { self.xray_decision() } else { "" }
    }

    /// Field `Sampled` of `X-Amzn-Trace-Id`: the decision of a backend's own sampler, else
    /// OpenTelemetry's. A trace that is not recorded has only the caller's decision. Without one,
    /// the field is left out, and the next service decides.
    fn xray_decision(&self) -> &'static str {
        let sampled = match &self.recording {
            Some(Recording { decision, backend_decisions, .. }) => {
                Some(backend_decisions.first().map_or(decision, |own| &own.decision).sampled)
            }
            None => self.parent.as_ref().and_then(|parent| parent.sampled),
        };
        match sampled {
            Some(true) => ";Sampled=1",
            Some(false) => ";Sampled=0",
            None => "",
        }
    }

    /// Finishes the trace: ends the SERVER span, and with a warning any span whose guard was kept
    /// from dropping by `mem::forget`. Returns `None` if the trace is not recorded.
    pub fn finish(mut self) -> Option<FinishedTrace> {
        let recording = self.recording.take()?;
        let now = self.arrived.present();
        let mut spans = recording.spans.take();
        for (index, opened_at) in recording.open.take() {
            spans[index].end = now;
            log::warn!(
                "the span {:?} opened at {opened_at} was never dropped; it ends with its request",
                spans[index].name
            );
        }
        spans[0].end = now;
        Some(FinishedTrace {
            trace_id: self.trace_id,
            trace_state: self.trace_state().to_owned(),
            flags: self.flags,
            remote_parent: spans[0].parent.is_some(),
            decision: recording.decision,
            backend_decisions: recording.backend_decisions,
            spans,
        })
    }

    fn edit_root(&self, change: impl FnOnce(&mut SpanData, &Limits)) {
        if let Some(recording) = &self.recording {
            recording.edit(0, change);
        }
    }
}

impl Recording {
    fn new(mut root: SpanData, decision: Decision, backend_decisions: Vec<BackendDecision>, limits: Limits) -> Self {
        root.attributes.reserve_exact(16);
        let mut spans = Vec::with_capacity(4);
        spans.push(root);
        Self {
            decision,
            backend_decisions,
            limits,
            spans: RefCell::new(spans),
            open: RefCell::default(),
            has_exception: Cell::new(false),
        }
    }

    fn edit(&self, index: usize, change: impl FnOnce(&mut SpanData, &Limits)) {
        change(&mut self.spans.borrow_mut()[index], &self.limits);
    }

    fn record_exception(&self, index: usize, exception: &Exception, time: u64) {
        self.has_exception.set(true);
        self.edit(index, |span, limits| span.record_exception(exception, time, limits));
    }
}

impl FinishedTrace {
    /// Decision for this backend: its own sampler's if it has one, else OpenTelemetry's.
    pub fn decision_for(&self, backend: &str) -> &Decision {
        self.own_decision(backend).map_or(&self.decision, |own| &own.decision)
    }

    /// Approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.trace_state.len() + self.spans.iter().map(SpanData::size).sum::<usize>()
    }

    /// Decision of the backend's own sampler, if it has one.
    pub fn own_decision(&self, backend: &str) -> Option<&BackendDecision> {
        self.backend_decisions.iter().find(|own| own.backend == backend)
    }
}

/// Leaves all spans of the request, also those that were never dropped.
impl Drop for RequestTrace<'_> {
    fn drop(&mut self) {
        current::replace(self.before);
    }
}

impl Span<'_> {
    /// Sets an indexed fact: an attribute in OTLP, an annotation in X-Ray.
    pub fn set_attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        self.edit(|span, limits| span.set_attribute(Cow::Borrowed(key), value.into(), limits));
    }

    /// Sets a fact that need not be indexed: metadata in X-Ray, an attribute `namespace.key` in
    /// OTLP.
    pub fn put_metadata(&mut self, namespace: &'static str, key: &'static str, value: impl Into<Value>) {
        self.edit(|span, limits| span.put_metadata(Metadata { namespace, key, value: value.into() }, limits));
    }

    /// Returns the headers that make the callee's spans children of this one, with the caller's
    /// `tracestate` and `baggage`.
    ///
    /// ```text
    /// traceparent: 00-4efaaf4d1e8720b39541901950019ee5-b7ad6b7169203331-03
    /// X-Amzn-Trace-Id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=b7ad6b7169203331;Sampled=1
    /// ```
    ///
    /// A trace that is not recorded has no span that could be the parent; then the caller's own
    /// context is passed on. If the caller left the decision open, there is no `traceparent`,
    /// because it cannot leave the decision open: without the flag it means "not sampled".
    pub fn context_headers(&self) -> Vec<(&'static str, String)> {
        let trace = self.trace;
        let mut headers = Vec::with_capacity(4);
        let own = self.recorded.map(|(recording, index)| recording.spans.borrow()[index].id);
        let span_id = own.or_else(|| trace.parent.as_ref().and_then(|parent| parent.span_id));
        let is_decided = own.is_some() || trace.parent.as_ref().is_some_and(|parent| parent.sampled.is_some());
        for propagator in &trace.tracer.propagators {
            match (propagator, span_id) {
                (Propagator::TraceContext, Some(span_id)) if is_decided => {
                    headers.push(("traceparent", traceparent(trace.trace_id, span_id, trace.flags).to_string()));
                    if !trace.trace_state().is_empty() {
                        headers.push(("tracestate", trace.trace_state().to_owned()));
                    }
                }
                (Propagator::XRay, _) if own.is_some() || trace.parent.is_some() => {
                    let extra = trace.parent.as_ref().map_or("", |parent| &parent.xray_extra);
                    let parent = span_id.map_or_else(String::new, |id| format!(";Parent={id}"));
                    let root = trace.trace_id.xray();
                    let decision = match trace.xray_decision() {
                        "" if trace.asked => ";Sampled=?",
                        decision => decision,
                    };
                    headers.push(("X-Amzn-Trace-Id", format!("Root={root}{parent}{decision}{extra}")));
                }
                (Propagator::Baggage, _) if !trace.baggage.is_empty() => {
                    headers.push(("baggage", trace.baggage.clone()));
                }
                _ => {}
            }
        }
        headers
    }

    /// Marks the span as failed. Its attributes describe the failure.
    pub fn set_failed(&mut self) {
        self.edit(|span, _| span.rare_mut().status = Status::Error(String::new()));
    }

    /// Marks the span as failed and records the reason as an event.
    pub fn record_exception(&mut self, exception: &Exception) {
        let now = self.trace.arrived.present();
        self.edit(|span, limits| span.record_exception(exception, now, limits));
    }

    fn edit(&self, change: impl FnOnce(&mut SpanData, &Limits)) {
        if let Some((recording, index)) = self.recorded {
            recording.edit(index, change);
        }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        current::replace(self.before);
        let Some((recording, index)) = self.recorded else { return };
        let now = self.trace.arrived.present();
        if std::thread::panicking()
            && !recording.has_exception.get()
            && let Some(exception) = take_panic()
        {
            recording.record_exception(index, &exception, now);
        }
        recording.edit(index, |span, _| span.end = now);
        let mut open = recording.open.borrow_mut();
        // A handler may drop spans in any order, so this one need not be the last.
        if let Some(place) = open.iter().rposition(|&(open, _)| open == index) {
            open.remove(place);
        }
    }
}

#[cfg(test)]
mod tests;

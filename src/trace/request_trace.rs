//! All spans of one request, from the moment it arrived to the moment its answer left.
//!
//! The request loop begins the trace and ends it. A handler gets a `&RequestTrace` and opens spans in it:
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
//! A span is a guard: it ends when it is dropped, on every way out of the function. There is no `end` to forget (the
//! segment is then never sent) or to call twice (another span is then closed), and no public way to open a second root
//! (it would replace the first). Those three mistakes cost the course's students their evenings.
//!
//! One thread writes all spans of a request, so there is no lock in here.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Arc;

use super::context::{Propagator, RemoteParent, TraceFlags, TraceHeaders};
use super::context::{baggage, extract, traceparent, xray_header_of};
use super::current::{self, Current};
use super::exception::{Exception, take_panic};
use super::id::{IdSource, SpanId, TraceId};
use super::sampler::{BackendDecision, BackendSampler, Decision, Reason, Sampler, SamplingInput};
use super::span::{Limits, Metadata, Scope, SpanData, SpanKind, Status, Timestamp, Value};

/// Begins traces. One for the whole program, owned by the request loop.
pub struct Tracer {
    /// Where ids come from.
    pub ids: IdSource,
    /// Whether spans are kept at all: false with `OTEL_SDK_DISABLED=true`. Headers are passed on even then.
    pub recording: bool,
    /// Which headers may bring a caller's context, in this order; the same are sent to those we call.
    pub propagators: Vec<Propagator>,
    /// Decides what OpenTelemetry backends get.
    pub sampler: Sampler,
    /// Backends that decide for themselves, by their names.
    pub backend_samplers: Vec<(&'static str, Arc<dyn BackendSampler>)>,
    /// How much a span may hold.
    pub limits: Limits,
}

/// What a trace begins with: the request before anything was done about it.
pub struct Incoming<'a> {
    /// When it arrived.
    pub at: Timestamp,
    /// Its trace headers.
    pub headers: &'a TraceHeaders<'a>,
    /// `Host`, with its port.
    pub host: Option<&'a str>,
    /// Its method.
    pub method: &'a str,
    /// Its path without the query.
    pub path: &'a str,
}

/// The spans of one request, while it is answered.
pub struct RequestTrace<'t> {
    tracer: &'t Tracer,
    recording: bool,
    arrived: Timestamp,
    trace_id: TraceId,
    root_id: SpanId,
    flags: TraceFlags,
    decision: Decision,
    backend_decisions: Vec<BackendDecision>,
    parent: Option<RemoteParent>,
    /// `Sampled=?` in `X-Amzn-Trace-Id`: the caller wants to be told what we decide.
    asked: bool,
    /// The caller's `baggage`, for those we call; empty if there was none.
    baggage: String,
    spans: RefCell<Vec<SpanData>>,
    /// The open spans below the root, outermost first: their places in `spans`, and the line that opened each.
    open: RefCell<Vec<(usize, &'static Location<'static>)>>,
    has_exception: Cell<bool>,
    before: Option<Current>,
}

/// An open span. It ends when it is dropped.
pub struct Span<'a> {
    trace: &'a RequestTrace<'a>,
    /// Its place in `spans`; `None` when nothing is recorded.
    index: Option<usize>,
    before: Option<Current>,
}

/// All spans of one request, and what was decided about them. Nobody changes it any more.
#[derive(Clone, Debug)]
pub struct FinishedTrace {
    /// The id that every backend and every log line shares.
    pub trace_id: TraceId,
    /// The caller's `tracestate`; empty if there was none.
    pub trace_state: String,
    /// The flags that were sent on.
    pub flags: TraceFlags,
    /// Whether the parent of the first span is in another process.
    pub remote_parent: bool,
    /// What the OpenTelemetry sampler said.
    pub decision: Decision,
    /// What the samplers of backends said that have one of their own.
    pub backend_decisions: Vec<BackendDecision>,
    /// The SERVER span first, then the others in the order they began.
    pub spans: Vec<SpanData>,
}

impl Tracer {
    /// Begins the trace of a request: joins the caller's if its headers name one, makes a new one otherwise. `name` is the
    /// name of the SERVER span.
    #[must_use]
    pub fn begin(&self, incoming: &Incoming<'_>, scope: Scope, name: Cow<'static, str>) -> RequestTrace<'_> {
        let arrived = incoming.at;
        let parent = extract(&self.propagators, incoming.headers);
        let (trace_id, random) = match &parent {
            Some(parent) => (parent.trace_id, parent.random),
            None => (self.ids.trace_id((arrived.unix_nanos() / 1_000_000_000) as u32), true),
        };
        let reads_xray = self.propagators.contains(&Propagator::XRay);
        let xray_header = xray_header_of(trace_id, incoming.headers).filter(|_| reads_xray);
        let decision = if self.recording {
            self.sampler.decide(trace_id, parent.as_ref())
        } else {
            // Nothing is recorded here, but the caller's decision still goes to those we call.
            let sampled = parent.as_ref().and_then(|parent| parent.sampled).unwrap_or(false);
            Decision { sampled, reason: Reason::Parent }
        };
        let root_id = self.ids.span_id();
        let flags = TraceFlags::new(decision.sampled, random);
        let mut spans = Vec::new();
        if self.recording {
            spans.reserve_exact(4);
            let parent = parent.as_ref().and_then(|parent| parent.span_id);
            spans.push(SpanData::begun(root_id, parent, scope, name, SpanKind::Server, arrived.unix_nanos()));
            spans[0].attributes.reserve_exact(16);
        }
        RequestTrace {
            tracer: self,
            recording: self.recording,
            arrived,
            trace_id,
            root_id,
            flags,
            decision,
            backend_decisions: self.ask_backends(incoming, xray_header.as_ref().and_then(|header| header.sampled)),
            asked: xray_header.is_some_and(|header| header.wants_decision),
            baggage: match &self.propagators[..] {
                propagators if propagators.contains(&Propagator::Baggage) => baggage(&incoming.headers.baggage),
                _ => String::new(),
            },
            parent,
            spans: RefCell::new(spans),
            open: RefCell::new(Vec::new()),
            has_exception: Cell::new(false),
            before: current::replace(Some(Current { trace_id, span_id: root_id, flags })),
        }
    }

    fn ask_backends(&self, incoming: &Incoming<'_>, header: Option<bool>) -> Vec<BackendDecision> {
        let ask = |(backend, sampler): &(&'static str, Arc<dyn BackendSampler>)| {
            let arrival = SamplingInput {
                host: incoming.host,
                method: incoming.method,
                path: incoming.path,
                header,
                now: incoming.at.unix_nanos() / 1_000_000_000,
                draw: self.ids.fraction(),
            };
            let (decision, service_name) = sampler.decide(&arrival);
            BackendDecision { backend, decision, service_name }
        };
        self.backend_samplers.iter().map(ask).collect()
    }

    /// A trace that is neither kept nor told to anybody: for health checks and for requests about telemetry itself.
    #[must_use]
    pub fn untraced(&self, arrived: Timestamp) -> RequestTrace<'_> {
        RequestTrace {
            tracer: self,
            recording: false,
            arrived,
            trace_id: self.ids.trace_id(0),
            root_id: self.ids.span_id(),
            flags: TraceFlags::default(),
            decision: Decision { sampled: false, reason: Reason::Always },
            backend_decisions: Vec::new(),
            parent: None,
            asked: false,
            baggage: String::new(),
            spans: RefCell::default(),
            open: RefCell::default(),
            has_exception: Cell::new(false),
            before: current::replace(None),
        }
    }
}

impl RequestTrace<'_> {
    /// Opens a span inside the innermost one that is open.
    #[track_caller]
    pub fn span(&self, scope: Scope, name: impl Into<Cow<'static, str>>) -> Span<'_> {
        self.open(scope, name.into(), SpanKind::Internal)
    }

    /// The same for a call to another service; [`Span::context_headers`] go with it.
    #[track_caller]
    pub fn client_span(&self, scope: Scope, name: impl Into<Cow<'static, str>>) -> Span<'_> {
        self.open(scope, name.into(), SpanKind::Client)
    }

    #[track_caller]
    fn open(&self, scope: Scope, name: Cow<'static, str>, kind: SpanKind) -> Span<'_> {
        if !self.recording {
            return Span { trace: self, index: None, before: current::span() };
        }
        let mut spans = self.spans.borrow_mut();
        let mut open = self.open.borrow_mut();
        let parent = open.last().map_or(self.root_id, |&(index, _)| spans[index].id);
        let id = self.tracer.ids.span_id();
        let index = spans.len();
        spans.push(SpanData::begun(id, Some(parent), scope, name, kind, self.arrived.present()));
        open.push((index, Location::caller()));
        let before = current::replace(Some(Current { trace_id: self.trace_id, span_id: id, flags: self.flags }));
        Span { trace: self, index: Some(index), before }
    }

    /// Sets an attribute of the SERVER span.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.edit(0, |span, limits| span.set_attribute(Cow::Borrowed(key), value.into(), limits));
    }

    /// Marks the SERVER span as failed. The attributes say how.
    pub fn set_failed(&self) {
        self.edit(0, |span, _| {
            if !span.failed() {
                span.status = Status::Error(String::new());
            }
        });
    }

    /// Records an exception on the span it happened in; on the SERVER span if that is not known.
    pub fn record_exception(&self, exception: &Exception) {
        let index = {
            let spans = self.spans.borrow();
            spans.iter().position(|span| Some(span.id) == exception.span).unwrap_or(0)
        };
        self.record_exception_on(index, exception);
    }

    /// Records the panic that this thread just came back from, unless a span that it closed has done so already.
    pub fn record_panic(&self) {
        if let Some(exception) = take_panic()
            && !self.has_exception.get()
        {
            self.record_exception(&exception);
        }
    }

    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// `traceparent` for the answer: this trace, with the SERVER span as the parent.
    #[must_use]
    pub fn traceparent(&self) -> String {
        traceparent(self.trace_id, self.root_id, self.flags)
    }

    /// The caller's `tracestate`; empty if there was none.
    #[must_use]
    pub fn trace_state(&self) -> &str {
        self.parent.as_ref().map_or("", |parent| &parent.trace_state)
    }

    /// `X-Amzn-Trace-Id` for the answer: the root, sampled or not, and the decision if the caller asked for it.
    #[must_use]
    pub fn x_amzn_trace_id(&self) -> String {
        let mut header = format!("Root={}", self.trace_id.xray());
        if self.asked {
            header.push_str(self.xray_decision());
        }
        header
    }

    /// What X-Ray is told of the decision: that of a backend with a sampler of its own, else OpenTelemetry's. Where nothing
    /// is recorded nothing was decided either, and a caller that left it open leaves it open for the next one.
    fn xray_decision(&self) -> &'static str {
        if !self.recording && self.parent.as_ref().is_none_or(|parent| parent.sampled.is_none()) {
            return "";
        }
        let decision = self.backend_decisions.first().map_or(&self.decision, |ours| &ours.decision);
        if decision.sampled { ";Sampled=1" } else { ";Sampled=0" }
    }

    /// Ends the trace: the SERVER span now, and any span that was kept from ending by `mem::forget`, which is said.
    /// `None` when nothing is recorded.
    #[must_use]
    pub fn finish(mut self) -> Option<FinishedTrace> {
        if !self.recording {
            return None;
        }
        let now = self.arrived.present();
        let mut spans = self.spans.take();
        for (index, opened_at) in self.open.take() {
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
            decision: self.decision.clone(),
            backend_decisions: std::mem::take(&mut self.backend_decisions),
            spans,
        })
    }

    fn record_exception_on(&self, index: usize, exception: &Exception) {
        self.has_exception.set(true);
        let now = self.arrived.present();
        self.edit(index, |span, limits| span.record_exception(exception, now, limits));
    }

    fn edit(&self, index: usize, change: impl FnOnce(&mut SpanData, &Limits)) {
        if let Some(span) = self.spans.borrow_mut().get_mut(index) {
            change(span, &self.tracer.limits);
        }
    }
}

impl FinishedTrace {
    /// What was decided for this backend: by its own sampler if it has one, else by OpenTelemetry's.
    #[must_use]
    pub fn decision_for(&self, backend: &str) -> &Decision {
        self.own_decision(backend).map_or(&self.decision, |own| &own.decision)
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.trace_state.len() + self.spans.iter().map(SpanData::size).sum::<usize>()
    }

    /// What the backend's own sampler said.
    #[must_use]
    pub fn own_decision(&self, backend: &str) -> Option<&BackendDecision> {
        self.backend_decisions.iter().find(|own| own.backend == backend)
    }
}

/// Whatever a request leaves behind, the thread is in no span afterwards.
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

    /// Keeps a fact that need not be searched: metadata in X-Ray, an attribute `namespace.key` in OTLP.
    pub fn put_metadata(&mut self, namespace: &'static str, key: &'static str, value: impl Into<Value>) {
        self.edit(|span, limits| span.put_metadata(Metadata { namespace, key, value: value.into() }, limits));
    }

    /// The headers that make the callee's spans children of this one, with the caller's `tracestate` and `baggage`.
    ///
    /// ```text
    /// traceparent: 00-4efaaf4d1e8720b39541901950019ee5-b7ad6b7169203331-03
    /// X-Amzn-Trace-Id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=b7ad6b7169203331;Sampled=1
    /// ```
    ///
    /// Where nothing is recorded there is no span for others to hang on: the caller's context goes on as it came. If it
    /// leaves the decision to others, it is not put into a `traceparent`, which would say no.
    #[must_use]
    pub fn context_headers(&self) -> Vec<(&'static str, String)> {
        let trace = self.trace;
        let mut headers = Vec::with_capacity(4);
        let own = self.index.map(|index| trace.spans.borrow()[index].id);
        let span_id = own.or_else(|| trace.parent.as_ref().and_then(|parent| parent.span_id));
        let is_decided = own.is_some() || trace.parent.as_ref().is_some_and(|parent| parent.sampled.is_some());
        for propagator in &trace.tracer.propagators {
            match (propagator, span_id) {
                (Propagator::TraceContext, Some(span_id)) if is_decided => {
                    headers.push(("traceparent", traceparent(trace.trace_id, span_id, trace.flags)));
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

    /// Marks the span as failed. The attributes say how.
    pub fn set_failed(&mut self) {
        self.edit(|span, _| span.status = Status::Error(String::new()));
    }

    /// Marks the span as failed, and records why.
    pub fn record_exception(&mut self, exception: &Exception) {
        let now = self.trace.arrived.present();
        self.edit(|span, limits| span.record_exception(exception, now, limits));
    }

    fn edit(&self, change: impl FnOnce(&mut SpanData, &Limits)) {
        if let Some(index) = self.index {
            self.trace.edit(index, change);
        }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        current::replace(self.before);
        let Some(index) = self.index else { return };
        if std::thread::panicking()
            && !self.trace.has_exception.get()
            && let Some(exception) = take_panic()
        {
            self.trace.record_exception_on(index, &exception);
        }
        let now = self.trace.arrived.present();
        self.edit(|span, _| span.end = now);
        let mut open = self.trace.open.borrow_mut();
        // Spans are dropped in any order a handler likes; only this one leaves.
        if let Some(place) = open.iter().rposition(|&(open, _)| open == index) {
            open.remove(place);
        }
    }
}

#[cfg(test)]
mod tests;

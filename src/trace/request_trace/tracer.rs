//! Begins traces: reads the caller's context, makes ids and asks the samplers.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Recording, RequestTrace};
use crate::trace::context::{Propagator, TraceFlags, TraceHeaders, baggage, extract, xray_header_of};
use crate::trace::current::{self, Current};
use crate::trace::id::IdSource;
use crate::trace::sampler::{BackendDecision, BackendSampler, Sampler, SamplingInput};
use crate::trace::span::{Limits, Scope, SpanData, SpanKind, Timestamp};

/// Begins traces. The request loop owns the only one.
pub struct Tracer {
    /// Source of ids.
    pub ids: IdSource,
    /// Records spans. False with `OTEL_SDK_DISABLED=true`; headers are passed on even then.
    pub recording: bool,
    /// Headers that may bring a caller's context, in this order. The same are sent on outgoing
    /// calls.
    pub propagators: Vec<Propagator>,
    /// Sampler of all backends without their own.
    pub sampler: Sampler,
    /// Samplers of single backends, by the names of the backends.
    pub backend_samplers: Vec<(&'static str, Arc<dyn BackendSampler>)>,
    /// Limits of a span.
    pub limits: Limits,
}

/// Request at its arrival, from which a trace begins.
pub struct Incoming<'a> {
    /// Time of arrival.
    pub at: Timestamp,
    /// Trace headers.
    pub headers: &'a TraceHeaders<'a>,
    /// `Host`, with its port.
    pub host: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
}

impl Tracer {
    /// Begins the trace of a request: joins the caller's trace if the headers name one, else starts
    /// a new one. `name` is the name of the SERVER span.
    pub fn begin(&self, incoming: &Incoming<'_>, scope: Scope, name: Cow<'static, str>) -> RequestTrace<'_> {
        let arrived = incoming.at;
        let parent = extract(&self.propagators, incoming.headers);
        let (trace_id, random) = match &parent {
            Some(parent) => (parent.trace_id, parent.random),
            None => (self.ids.trace_id((arrived.unix_nanos() / 1_000_000_000) as u32), true),
        };
        let reads_xray = self.propagators.contains(&Propagator::XRay);
        let xray_header = xray_header_of(trace_id, incoming.headers).filter(|_| reads_xray);
        let root_id = self.ids.span_id();
        let recording = self.recording.then(|| {
            let parent_id = parent.as_ref().and_then(|parent| parent.span_id);
            let root = SpanData::new(root_id, scope, name, SpanKind::Server, arrived.unix_nanos());
            Recording::new(
                SpanData { parent: parent_id, ..root },
                self.sampler.decide(trace_id, parent.as_ref()),
                self.ask_backends(incoming, xray_header.as_ref().and_then(|header| header.sampled)),
                self.limits,
            )
        });
        let sampled = match &recording {
            Some(recording) => recording.decision.sampled,
            // Without a decision of ours, outgoing calls still carry the caller's.
            None => parent.as_ref().and_then(|parent| parent.sampled).unwrap_or(false),
        };
        let flags = TraceFlags { sampled, random };
        RequestTrace {
            tracer: self,
            arrived,
            trace_id,
            root_id,
            flags,
            asked: xray_header.is_some_and(|header| header.wants_decision),
            baggage: match &self.propagators[..] {
                propagators if propagators.contains(&Propagator::Baggage) => baggage(&incoming.headers.baggage),
                _ => String::new(),
            },
            parent,
            recording,
            before: current::replace(Some(Current { trace_id, span_id: root_id, flags })),
        }
    }

    fn ask_backends(&self, incoming: &Incoming<'_>, header: Option<bool>) -> Vec<BackendDecision> {
        let ask = |(backend, sampler): &(&'static str, Arc<dyn BackendSampler>)| {
            let input = SamplingInput {
                host: incoming.host,
                method: incoming.method,
                path: incoming.path,
                header,
                now: incoming.at.unix_nanos() / 1_000_000_000,
                draw: self.ids.fraction(),
            };
            let (decision, service_name) = sampler.decide(&input);
            BackendDecision { backend, decision, service_name }
        };
        self.backend_samplers.iter().map(ask).collect()
    }

    /// Begins a trace that is neither stored nor sent, for health checks and for requests of the
    /// page.
    pub fn untraced(&self, arrived: Timestamp) -> RequestTrace<'_> {
        RequestTrace {
            tracer: self,
            arrived,
            trace_id: self.ids.trace_id(0),
            root_id: self.ids.span_id(),
            flags: TraceFlags::default(),
            parent: None,
            asked: false,
            baggage: String::new(),
            recording: None,
            before: current::replace(None),
        }
    }
}

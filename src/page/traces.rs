//! `GET /telemetry/traces` and `GET /telemetry/traces/{id}`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::recent::Recent;
use crate::plain_json::{Fields, time};
use crate::trace::sampler::BackendDecision;
use crate::trace::span::{Event, SpanData, SpanKind, Status};
use crate::trace::{FinishedTrace, Value};

/// `{"traces":[...]}`, the newest first.
#[derive(Serialize)]
pub(super) struct List<'a> {
    pub(super) traces: Vec<Summary<'a>>,
}

/// One request in a line, and what the sampler said.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    trace_id: String,
    xray_trace_id: String,
    name: &'a str,
    method: Option<&'a str>,
    path: Option<&'a str>,
    status: Option<i64>,
    started_at: String,
    duration_ms: f64,
    spans: usize,
    failed: bool,
    sampled: bool,
    sampling: String,
    /// What backends with a sampler of their own decided.
    backends: BTreeMap<&'static str, BackendJson<'a>>,
}

#[derive(Serialize)]
struct BackendJson<'a> {
    sampled: bool,
    sampling: String,
    service_name: &'a str,
}

/// All requests of one trace: a page that calls twice makes two.
#[derive(Serialize)]
pub(super) struct Trace<'a> {
    trace_id: String,
    xray_trace_id: String,
    requests: Vec<RequestJson<'a>>,
}

#[derive(Serialize)]
struct RequestJson<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    trace_state: &'a str,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct SpanJson<'a> {
    span_id: String,
    parent_span_id: Option<String>,
    scope: &'a str,
    name: &'a str,
    kind: &'static str,
    started_at: String,
    /// Since the request arrived.
    offset_ms: f64,
    duration_ms: f64,
    status: &'static str,
    status_message: &'a str,
    attributes: Fields<'a>,
    dropped_attributes: u32,
    events: Vec<EventJson<'a>>,
    metadata: Fields<'a>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    name: &'a str,
    at: String,
    attributes: Fields<'a>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(trace: &'a FinishedTrace) -> Self {
        let root = &trace.spans[0];
        let text = |key| match root.attribute(key) {
            Some(Value::String(text)) => Some(text.as_ref()),
            _ => None,
        };
        let status = match root.attribute("http.response.status_code") {
            Some(Value::Int(status)) => Some(*status),
            _ => None,
        };
        Self {
            trace_id: trace.trace_id.to_string(),
            xray_trace_id: trace.trace_id.xray(),
            name: &root.name,
            method: text("http.request.method"),
            path: text("url.path"),
            status,
            started_at: time(root.start),
            duration_ms: millis(root.duration()),
            spans: trace.spans.len(),
            failed: trace.spans.iter().any(SpanData::failed),
            sampled: trace.decision.sampled,
            sampling: trace.decision.to_string(),
            backends: trace.backend_decisions.iter().map(|own| (own.backend, BackendJson::of(own))).collect(),
        }
    }
}

impl<'a> BackendJson<'a> {
    fn of(own: &'a BackendDecision) -> Self {
        let (sampled, sampling) = (own.decision.sampled, own.decision.to_string());
        Self { sampled, sampling, service_name: &own.service_name }
    }
}

impl<'a> Trace<'a> {
    /// The trace of that id, in either spelling.
    pub(super) fn of(recent: &'a Recent, id: &str) -> Option<Self> {
        let belongs = |trace: &&FinishedTrace| trace.trace_id.hex().as_str() == id || trace.trace_id.xray() == id;
        let mut traces: Vec<_> = recent.newest_first().filter(belongs).collect();
        traces.reverse();
        let first = traces.first()?;
        let requests = traces.iter().map(|trace| RequestJson::of(trace)).collect();
        Some(Self { trace_id: first.trace_id.to_string(), xray_trace_id: first.trace_id.xray(), requests })
    }
}

impl<'a> RequestJson<'a> {
    fn of(trace: &'a FinishedTrace) -> Self {
        let arrived = trace.spans[0].start;
        let spans = trace.spans.iter().map(|span| SpanJson::of(span, arrived)).collect();
        Self { summary: Summary::of(trace), trace_state: &trace.trace_state, spans }
    }
}

impl<'a> SpanJson<'a> {
    fn of(span: &'a SpanData, arrived: u64) -> Self {
        let (status, status_message) = match &span.status {
            Status::Unset => ("unset", ""),
            Status::Error(message) => ("error", message.as_str()),
        };
        Self {
            span_id: span.id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            scope: span.scope.name,
            name: &span.name,
            kind: match span.kind {
                SpanKind::Internal => "internal",
                SpanKind::Server => "server",
                SpanKind::Client => "client",
            },
            started_at: time(span.start),
            offset_ms: millis(span.start.saturating_sub(arrived)),
            duration_ms: millis(span.duration()),
            status,
            status_message,
            attributes: Fields(&span.attributes, &[]),
            dropped_attributes: span.dropped_attributes,
            events: span.events.iter().map(EventJson::of).collect(),
            metadata: Fields(&[], &span.metadata),
        }
    }
}

impl<'a> EventJson<'a> {
    fn of(event: &'a Event) -> Self {
        Self { name: &event.name, at: time(event.time), attributes: Fields(&event.attributes, &[]) }
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1_000_000.0
}

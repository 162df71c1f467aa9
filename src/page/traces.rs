//! `GET /telemetry/traces` and `GET /telemetry/traces/{id}`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::deliveries;
use super::recent::{Recent, RecentRequest};
use crate::delivery::{BatchProcessor, Pipeline};
use crate::logging::LogLine;
use crate::plain_json::{Fields, time};
use crate::trace::Value;
use crate::trace::sampler::BackendDecision;
use crate::trace::span::{Event, SpanData, SpanKind, Status};

/// `{"last_request":7,"traces":[...]}`, the newest first.
#[derive(Serialize)]
pub(super) struct RequestList<'a> {
    last_request: u64,
    traces: Vec<RequestSummary<'a>>,
}

/// One request in a line, and what the sampler said.
#[derive(Serialize)]
struct RequestSummary<'a> {
    /// Counted from 1 since the start.
    number: u64,
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
pub(super) struct TraceView<'a> {
    trace_id: String,
    xray_trace_id: String,
    requests: Vec<RequestJson<'a>>,
    /// How many earlier requests of the trace are not shown.
    earlier: usize,
    /// The payloads that carry it, or its lines.
    deliveries: Vec<deliveries::DeliverySummary>,
}

#[derive(Serialize)]
struct RequestJson<'a> {
    #[serde(flatten)]
    summary: RequestSummary<'a>,
    /// Since the first request of the trace arrived.
    offset_ms: f64,
    trace_state: &'a str,
    spans: Vec<SpanView<'a>>,
    lines: Vec<LineJson<'a>>,
    /// What each backend makes, or would make, of this request: its payloads as text.
    dialects: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Serialize)]
struct LineJson<'a> {
    /// Since the request arrived.
    offset_ms: f64,
    level: &'static str,
    target: &'a str,
    message: &'a str,
    span_id: Option<String>,
}

#[derive(Serialize)]
struct SpanView<'a> {
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
    events: Vec<EventView<'a>>,
    metadata: Fields<'a>,
}

#[derive(Serialize)]
struct EventView<'a> {
    name: &'a str,
    at: String,
    /// Since the request arrived.
    offset_ms: f64,
    attributes: Fields<'a>,
}

impl<'a> RequestList<'a> {
    pub(super) fn of(recent: &'a Recent, since: u64) -> Self {
        let newer = recent.newest_first().take_while(|request| request.number > since);
        Self { last_request: recent.last_number(), traces: newer.map(RequestSummary::of).collect() }
    }
}

impl<'a> RequestSummary<'a> {
    fn of(request: &'a RecentRequest) -> Self {
        let trace = &request.trace;
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
            number: request.number,
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

/// Requests of one trace that are shown: a program that sends the same `traceparent` for ever has all of them in one.
const MAX_REQUESTS: usize = 20;

impl<'a> TraceView<'a> {
    /// The trace of that id, in either spelling.
    pub(super) fn of(recent: &'a Recent, pipeline: &Pipeline, id: &str) -> Option<Self> {
        let belongs = |request: &&RecentRequest| {
            let trace_id = request.trace.trace_id;
            trace_id.hex().as_str() == id || trace_id.xray() == id
        };
        let count = recent.newest_first().filter(belongs).count();
        let mut requests: Vec<_> = recent.newest_first().filter(belongs).take(MAX_REQUESTS).collect();
        let earlier = count - requests.len();
        requests.sort_by_key(|request| request.trace.spans[0].start);
        let first = &requests.first()?.trace;
        let (trace_id, began) = (first.trace_id, first.spans[0].start);
        Some(Self {
            trace_id: trace_id.to_string(),
            xray_trace_id: trace_id.xray(),
            requests: requests.iter().map(|request| RequestJson::of(request, began, pipeline)).collect(),
            earlier,
            deliveries: deliveries::of_trace(pipeline, trace_id),
        })
    }
}

impl<'a> RequestJson<'a> {
    fn of(request: &'a RecentRequest, began: u64, pipeline: &Pipeline) -> Self {
        let (trace, lines) = (&request.trace, &request.lines);
        let arrived = trace.spans[0].start;
        let dialect = |processor: &BatchProcessor| {
            let payloads = processor.encoding.encode_request(trace, lines).into_iter();
            let texts = payloads.map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned());
            (processor.name, texts.collect())
        };
        Self {
            summary: RequestSummary::of(request),
            offset_ms: millis(arrived.saturating_sub(began)),
            trace_state: &trace.trace_state,
            spans: trace.spans.iter().map(|span| SpanView::of(span, arrived)).collect(),
            lines: lines.iter().map(|line| LineJson::of(line, arrived)).collect(),
            dialects: pipeline.processors().iter().filter(|processor| processor.is_remote).map(dialect).collect(),
        }
    }
}

impl<'a> LineJson<'a> {
    fn of(line: &'a LogLine, arrived: u64) -> Self {
        Self {
            offset_ms: millis((line.time * 1_000_000).saturating_sub(arrived)),
            level: line.level.as_str(),
            target: &line.target,
            message: &line.message,
            span_id: line.span.map(|span| span.span_id.to_string()),
        }
    }
}

impl<'a> SpanView<'a> {
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
            events: span.events.iter().map(|event| EventView::of(event, arrived)).collect(),
            metadata: Fields(&[], &span.metadata),
        }
    }
}

impl<'a> EventView<'a> {
    fn of(event: &'a Event, arrived: u64) -> Self {
        Self {
            name: &event.name,
            at: time(event.time),
            offset_ms: millis(event.time.saturating_sub(arrived)),
            attributes: Fields(&event.attributes, &[]),
        }
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1_000_000.0
}

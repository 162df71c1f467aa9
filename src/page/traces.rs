//! `GET /telemetry/traces` and `GET /telemetry/traces/{id}`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::deliveries;
use super::recent::{Recent, RecentRequest};
use crate::delivery::{BatchProcessor, Pipeline};
use crate::logging::LogLine;
use crate::plain_json::Fields;
use crate::text::time;
use crate::trace::id::TraceId;
use crate::trace::sampler::BackendDecision;
use crate::trace::span::{Event, SpanData, SpanKind, Status};

/// `{"last_request":7,"traces":[...]}`, the newest first.
#[derive(Serialize)]
pub(super) struct RequestListView<'a> {
    last_request: u64,
    traces: Vec<RequestSummaryView<'a>>,
}

/// A request in one line, with the decision of the sampler.
#[derive(Serialize)]
struct RequestSummaryView<'a> {
    /// Number of the request, counted from 1 since the start.
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
    /// Decisions of the backends that have their own sampler.
    backends: BTreeMap<&'static str, DecisionView<'a>>,
}

/// The decision of one backend that has its own sampler.
#[derive(Serialize)]
struct DecisionView<'a> {
    sampled: bool,
    sampling: String,
    service_name: &'a str,
}

/// All requests of one trace. A client that calls twice within one trace makes two.
#[derive(Serialize)]
pub(super) struct TraceView<'a> {
    trace_id: String,
    xray_trace_id: String,
    requests: Vec<RequestView<'a>>,
    /// Number of earlier requests of the trace that are not shown.
    earlier: usize,
    /// The payloads that carry spans or log lines of the trace.
    deliveries: Vec<deliveries::DeliverySummaryView>,
}

/// A request with its spans, its log lines and the payloads it becomes.
#[derive(Serialize)]
struct RequestView<'a> {
    #[serde(flatten)]
    summary: RequestSummaryView<'a>,
    /// Time since the first request of the trace arrived.
    offset_ms: f64,
    trace_state: &'a str,
    spans: Vec<SpanView<'a>>,
    lines: Vec<LogLineView<'a>>,
    /// The payloads that each remote backend makes of this request, or would make if it were on.
    dialects: BTreeMap<&'static str, Vec<String>>,
}

/// A line that was logged during the request.
#[derive(Serialize)]
struct LogLineView<'a> {
    /// Time since the request arrived.
    offset_ms: f64,
    level: &'static str,
    target: &'a str,
    message: &'a str,
    span_id: Option<String>,
}

/// A span, its attributes as plain JSON values.
#[derive(Serialize)]
struct SpanView<'a> {
    span_id: String,
    parent_span_id: Option<String>,
    scope: &'a str,
    name: &'a str,
    kind: &'static str,
    started_at: String,
    /// Time since the request arrived.
    offset_ms: f64,
    duration_ms: f64,
    status: &'static str,
    status_message: &'a str,
    attributes: Fields<'a>,
    dropped_attributes: u32,
    events: Vec<EventView<'a>>,
    metadata: Fields<'a>,
}

/// An event of a span, for instance an exception.
#[derive(Serialize)]
struct EventView<'a> {
    name: &'a str,
    at: String,
    /// Time since the request arrived.
    offset_ms: f64,
    attributes: Fields<'a>,
}

impl<'a> RequestListView<'a> {
    pub(super) fn new(recent: &'a Recent, since: u64) -> Self {
        let newer = recent.newest_first().take_while(|request| request.number > since);
        Self { last_request: recent.last_number(), traces: newer.map(RequestSummaryView::new).collect() }
    }
}

impl<'a> RequestSummaryView<'a> {
    fn new(request: &'a RecentRequest) -> Self {
        let trace = &request.trace;
        let root = &trace.spans[0];
        let text = |key| root.text(key);
        let status = root.int("http.response.status_code");
        Self {
            number: request.number,
            trace_id: trace.trace_id.to_string(),
            xray_trace_id: trace.trace_id.xray().to_string(),
            name: &root.name,
            method: text("http.request.method"),
            path: text("url.path"),
            status,
            started_at: time::micros(root.start).to_string(),
            duration_ms: millis(root.duration()),
            spans: trace.spans.len(),
            failed: trace.spans.iter().any(SpanData::failed),
            sampled: trace.decision.sampled,
            sampling: trace.decision.to_string(),
            backends: trace.backend_decisions.iter().map(|own| (own.backend, DecisionView::new(own))).collect(),
        }
    }
}

impl<'a> DecisionView<'a> {
    fn new(own: &'a BackendDecision) -> Self {
        let BackendDecision { decision, service_name, .. } = own;
        Self { sampled: decision.sampled, sampling: decision.to_string(), service_name }
    }
}

/// Maximum number of requests shown for one trace. A client that always sends the same
/// `traceparent` puts all its requests into one trace.
const MAX_REQUESTS: usize = 20;

impl<'a> TraceView<'a> {
    /// The trace with this id, in the spelling of W3C or of X-Ray, if it is still kept.
    pub(super) fn find(recent: &'a Recent, pipeline: &Pipeline, id: &str) -> Option<Self> {
        let trace_id = TraceId::from_hex(id).or_else(|| TraceId::from_xray(id))?;
        let belongs = |request: &&RecentRequest| request.trace.trace_id == trace_id;
        let mut requests: Vec<_> = recent.newest_first().filter(belongs).collect();
        let earlier = requests.len().saturating_sub(MAX_REQUESTS);
        requests.truncate(MAX_REQUESTS);
        requests.sort_by_key(|request| request.trace.spans[0].start);
        let began = requests.first()?.trace.spans[0].start;
        Some(Self {
            trace_id: trace_id.to_string(),
            xray_trace_id: trace_id.xray().to_string(),
            requests: requests.iter().map(|request| RequestView::new(request, began, pipeline)).collect(),
            earlier,
            deliveries: deliveries::of_trace(pipeline, trace_id),
        })
    }
}

impl<'a> RequestView<'a> {
    fn new(request: &'a RecentRequest, began: u64, pipeline: &Pipeline) -> Self {
        let (trace, lines) = (&request.trace, &request.lines);
        let arrived = trace.spans[0].start;
        let dialect = |processor: &BatchProcessor| {
            let payloads = processor.plan.encoding.encode_request(trace, lines).into_iter();
            let texts = payloads.map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned());
            (processor.plan.name, texts.collect())
        };
        Self {
            summary: RequestSummaryView::new(request),
            offset_ms: millis(arrived.saturating_sub(began)),
            trace_state: &trace.trace_state,
            spans: trace.spans.iter().map(|span| SpanView::new(span, arrived)).collect(),
            lines: lines.iter().map(|line| LogLineView::new(line, arrived)).collect(),
            dialects: pipeline.processors().iter().filter(|processor| processor.plan.is_remote).map(dialect).collect(),
        }
    }
}

impl<'a> LogLineView<'a> {
    fn new(line: &'a LogLine, arrived: u64) -> Self {
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
    fn new(span: &'a SpanData, arrived: u64) -> Self {
        let (status, status_message) = match &span.rare().status {
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
            started_at: time::micros(span.start).to_string(),
            offset_ms: millis(span.start.saturating_sub(arrived)),
            duration_ms: millis(span.duration()),
            status,
            status_message,
            attributes: Fields(&span.attributes, &[]),
            dropped_attributes: span.rare().dropped_attributes,
            events: span.rare().events.iter().map(|event| EventView::new(event, arrived)).collect(),
            metadata: Fields(&[], &span.rare().metadata),
        }
    }
}

impl<'a> EventView<'a> {
    fn new(event: &'a Event, arrived: u64) -> Self {
        Self {
            name: &event.name,
            at: time::micros(event.time).to_string(),
            offset_ms: millis(event.time.saturating_sub(arrived)),
            attributes: Fields(&event.attributes, &[]),
        }
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1_000_000.0
}

//! Finished traces as OTLP JSON. The structs have the names of the protobuf messages, and their
//! fields are in the order of the bytes:
//!
//! ```text
//! {"resourceSpans":[{                                           the program: one per request
//!   "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cruddur"}},...]},
//!   "scopeSpans":[{                                             a part of the program
//!     "scope":{"name":"cruddur.http","version":"0.1.0"},
//!     "spans":[{"traceId":"5b8e...","spanId":"eee1...",...},...]}]}]}
//! ```
//!
//! Protobuf's JSON mapping writes 64-bit numbers as text. A field with its default value (an empty
//! text, a zero, an empty list) is left out.

use std::borrow::Cow;
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};

use crate::delivery::{Encoder, Payload};
use crate::trace::id::{SpanId, TraceId};
use crate::trace::span::{Attribute, Event, Metadata, Scope, SpanData, SpanKind, Status};
use crate::trace::{FinishedTrace, Value};

/// Encoder of finished traces as OTLP JSON.
pub(super) struct OtlpJson {
    /// Attributes of the resource, which every payload carries.
    pub(super) resource: Vec<Attribute>,
    /// Size at which a payload is divided, until the parts are smaller or hold a single trace.
    pub(super) max_body: usize,
}

/// Size of a payload before compression that all known receivers accept.
const MAX_BODY: usize = 1 << 20;

impl OtlpJson {
    pub(super) fn new(resource: Vec<Attribute>) -> Self {
        Self { resource, max_body: MAX_BODY }
    }

    fn append(&self, batch: &[Arc<FinishedTrace>], payloads: &mut Vec<Payload>) {
        let mut bytes = Vec::with_capacity(batch.len() * EXPECTED_BYTES_PER_TRACE);
        let request = ExportTraceServiceRequest { resource_spans: [ResourceSpans::new(&self.resource, batch)] };
        serde_json::to_writer(&mut bytes, &request)
            .expect("writing to memory cannot fail, and no Serialize below returns an error of its own");
        if bytes.len() > self.max_body && batch.len() > 1 {
            let (first, second) = batch.split_at(batch.len() / 2);
            self.append(first, payloads);
            return self.append(second, payloads);
        }
        let items = batch.iter().map(|trace| trace.spans.len()).sum();
        let traces = batch.iter().map(|trace| trace.trace_id).collect();
        payloads.push(Payload { bytes, items, traces, trimmed: None });
    }
}

impl Encoder<FinishedTrace> for OtlpJson {
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        let mut payloads = Vec::new();
        self.append(batch, &mut payloads);
        payloads
    }
}

const EXPECTED_BYTES_PER_TRACE: usize = 1200;

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportTraceServiceRequest<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

/// `{"resource":{"attributes":[...]},"scopeSpans":[...]}`
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: Vec<ScopeSpans<'a>>,
}

#[derive(serde::Serialize)]
struct Resource<'a> {
    attributes: Vec<KeyValue<'a>>,
}

/// `{"scope":{"name":"cruddur.http","version":"0.1.0"},"spans":[...]}`
#[derive(serde::Serialize)]
struct ScopeSpans<'a> {
    scope: OtlpScope,
    spans: Vec<OtlpSpan<'a>>,
}

#[derive(serde::Serialize)]
struct OtlpScope {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

impl<'a> ResourceSpans<'a> {
    /// Groups the spans of a batch by scope.
    fn new(resource: &'a [Attribute], batch: &'a [Arc<FinishedTrace>]) -> Self {
        let mut groups: Vec<(Scope, Vec<OtlpSpan<'a>>)> = Vec::new();
        for trace in batch {
            for (index, span) in trace.spans.iter().enumerate() {
                let otlp = OtlpSpan::new(trace, index);
                // The program has about a dozen scopes, so a search through a list is fast enough.
                match groups.iter_mut().find(|(scope, _)| *scope == span.scope) {
                    Some((_, spans)) => spans.push(otlp),
                    None => groups.push((span.scope, vec![otlp])),
                }
            }
        }
        let scope_spans = groups
            .into_iter()
            .map(|(Scope { name, version }, spans)| ScopeSpans { scope: OtlpScope { name, version }, spans });
        Self { resource: Resource { attributes: key_values(resource, &[]) }, scope_spans: scope_spans.collect() }
    }
}

/// ```text
/// {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
///  "traceState":"congo=t61rcWkgMzE","parentSpanId":"00f067aa0ba902b7","flags":769,
///  "name":"GET /api/activities/home","kind":2,"startTimeUnixNano":"1676851200000000000",
///  "endTimeUnixNano":"1676851200004250000","attributes":[...],"status":{}}
/// ```
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    /// `tracestate`, which only the first span of a trace carries.
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<SpanId>,
    flags: u32,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: Decimal<u64>,
    end_time_unix_nano: Decimal<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<OtlpEvent<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events_count: u32,
    status: OtlpStatus<'a>,
}

impl<'a> OtlpSpan<'a> {
    fn new(trace: &'a FinishedTrace, index: usize) -> Self {
        let (is_first, span) = (index == 0, &trace.spans[index]);
        let parent_is_remote = is_first && trace.remote_parent;
        Self {
            trace_id: trace.trace_id,
            span_id: span.id,
            trace_state: if is_first { &trace.trace_state } else { "" },
            parent_span_id: span.parent,
            flags: u32::from(trace.flags.bits()) | IS_REMOTE_KNOWN | if parent_is_remote { IS_REMOTE } else { 0 },
            name: &span.name,
            kind: match span.kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start_time_unix_nano: Decimal(span.start),
            end_time_unix_nano: Decimal(span.end),
            attributes: key_values(&span.attributes, &span.metadata),
            dropped_attributes_count: span.dropped_attributes,
            events: span.events.iter().map(OtlpEvent::new).collect(),
            dropped_events_count: span.dropped_events,
            status: OtlpStatus::new(span),
        }
    }
}

/// Bit 8 of the flags: it is known whether the parent is remote. The low byte holds the flags of
/// `traceparent`.
const IS_REMOTE_KNOWN: u32 = 0x100;
/// Bit 9 of the flags: the parent is remote.
const IS_REMOTE: u32 = 0x200;

/// `{}`, or `{"message":"boom","code":2}`. An unset status is written too: some receivers fail
/// without it.
#[derive(serde::Serialize)]
struct OtlpStatus<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    code: u32,
}

impl<'a> OtlpStatus<'a> {
    fn new(span: &'a SpanData) -> Self {
        match &span.status {
            Status::Unset => Self { message: "", code: 0 },
            Status::Error(message) => Self { message, code: 2 },
        }
    }
}

/// `{"timeUnixNano":"1676851200002000000","name":"exception","attributes":[...]}`
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpEvent<'a> {
    time_unix_nano: Decimal<u64>,
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
}

impl<'a> OtlpEvent<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            time_unix_nano: Decimal(event.time),
            name: &event.name,
            attributes: key_values(&event.attributes, &[]),
            dropped_attributes_count: event.dropped_attributes,
        }
    }
}

/// `{"key":"app.result_length","value":{"intValue":"3"}}`
#[derive(serde::Serialize)]
struct KeyValue<'a> {
    key: Cow<'a, str>,
    value: AnyValue<'a>,
}

/// Maps attributes, and metadata as attributes `namespace.key`.
fn key_values<'a>(attributes: &'a [Attribute], metadata: &'a [Metadata]) -> Vec<KeyValue<'a>> {
    let attributes = attributes
        .iter()
        .map(|Attribute { key, value }| KeyValue { key: Cow::Borrowed(key), value: AnyValue::new(value) });
    let metadata = metadata.iter().map(|Metadata { namespace, key, value }| KeyValue {
        key: format!("{namespace}.{key}").into(),
        value: AnyValue::new(value),
    });
    attributes.chain(metadata).collect()
}

/// Object with one field, whose name is the type: `{"stringValue":"x"}`, `{"boolValue":true}`,
/// `{"intValue":"3"}`, `{"doubleValue":0.5}`, `{"kvlistValue":{"values":[...]}}`.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    BoolValue(bool),
    IntValue(Decimal<i64>),
    DoubleValue(f64),
    /// JSON has no such numbers. Without this, serde_json would write `null`, which receivers
    /// refuse.
    #[serde(rename = "doubleValue")]
    NotFinite(&'static str),
    KvlistValue {
        values: Vec<KeyValue<'a>>,
    },
}

impl<'a> AnyValue<'a> {
    fn new(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::StringValue(text),
            Value::Bool(value) => Self::BoolValue(*value),
            Value::Int(number) => Self::IntValue(Decimal(*number)),
            Value::Double(number) if number.is_nan() => Self::NotFinite("NaN"),
            Value::Double(f64::INFINITY) => Self::NotFinite("Infinity"),
            Value::Double(f64::NEG_INFINITY) => Self::NotFinite("-Infinity"),
            Value::Double(number) => Self::DoubleValue(*number),
            Value::Map(entries) => Self::KvlistValue { values: key_values(entries, &[]) },
        }
    }
}

/// 64-bit number as text: `"1676851200000000000"`.
struct Decimal<T>(T);

impl<T: std::fmt::Display> Serialize for Decimal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

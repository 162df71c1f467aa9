//! Finished traces as OTLP JSON. Every struct here borrows and is written in the order of its fields.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::delivery::{Encoder, Payload};
use crate::trace::FinishedTrace;
use crate::trace::Value;
use crate::trace::id::{SpanId, TraceId};
use crate::trace::span::{Attribute, Event, Scope, SpanData, SpanKind, Status};

/// Makes OTLP JSON of finished traces.
pub(super) struct OtlpJson {
    /// The attributes of the resource, which every payload carries.
    pub(super) resource: Vec<Attribute>,
    /// A payload that gets larger is halved until its parts are not, or are single traces.
    pub(super) max_body: usize,
}

/// Payloads are cut at this size before compression. Receivers differ in what they take; all take this.
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
    attributes: Attributes<'a>,
}

/// `{"scope":{"name":"cruddur.http","version":"0.1.0"},"spans":[...]}`
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ScopeSpans<'a> {
    scope: OtlpScope<'a>,
    spans: SpansOfScope<'a>,
}

#[derive(serde::Serialize)]
struct OtlpScope<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

impl<'a> ResourceSpans<'a> {
    /// The scopes of a batch are few (a dozen in this program), so each is one more walk over its spans.
    fn new(resource: &'a [Attribute], batch: &'a [Arc<FinishedTrace>]) -> Self {
        let mut scopes: Vec<Scope> = Vec::new();
        for span in batch.iter().flat_map(|trace| &trace.spans) {
            if !scopes.contains(&span.scope) {
                scopes.push(span.scope);
            }
        }
        let scope_spans = scopes
            .into_iter()
            .map(|scope| ScopeSpans {
                scope: OtlpScope { name: scope.name, version: scope.version },
                spans: SpansOfScope { batch, scope },
            })
            .collect();
        Self { resource: Resource { attributes: Attributes(resource, &[]) }, scope_spans }
    }
}

struct SpansOfScope<'a> {
    batch: &'a [Arc<FinishedTrace>],
    scope: Scope,
}

impl Serialize for SpansOfScope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for trace in self.batch {
            for (index, span) in trace.spans.iter().enumerate().filter(|(_, span)| span.scope == self.scope) {
                list.serialize_element(&OtlpSpan::new(trace, index == 0, span))?;
            }
        }
        list.end()
    }
}

/// ```text
/// {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","traceState":"congo=t61rcWkgMzE",
///  "parentSpanId":"00f067aa0ba902b7","flags":769,"name":"GET /api/activities/home","kind":2,
///  "startTimeUnixNano":"1676851200000000000","endTimeUnixNano":"1676851200004250000","attributes":[...],"status":{}}
/// ```
///
/// A span without a parent leaves `parentSpanId` out. The spans below the first one share its `traceState`, so it
/// stands there only.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<SpanId>,
    flags: u32,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: Decimal<u64>,
    end_time_unix_nano: Decimal<u64>,
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Events::is_empty")]
    events: Events<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events_count: u32,
    status: OtlpStatus<'a>,
}

impl<'a> OtlpSpan<'a> {
    fn new(trace: &'a FinishedTrace, first: bool, span: &'a SpanData) -> Self {
        let parent_is_remote = first && trace.remote_parent;
        Self {
            trace_id: trace.trace_id,
            span_id: span.id,
            trace_state: if first { &trace.trace_state } else { "" },
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
            attributes: Attributes(&span.attributes, &span.metadata),
            dropped_attributes_count: span.dropped_attributes,
            events: Events(&span.events),
            dropped_events_count: span.dropped_events,
            status: match &span.status {
                Status::Unset => OtlpStatus { message: "", code: 0 },
                Status::Error(message) => OtlpStatus { message, code: 2 },
            },
        }
    }
}

/// Bit 8: "we know whether the parent is remote". Bit 9: "it is". The low byte holds the flags of `traceparent`.
const IS_REMOTE_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// `{}`, or `{"message":"boom","code":2}`. An unset status is written all the same: some receivers stumble without it.
#[derive(serde::Serialize)]
struct OtlpStatus<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    code: u32,
}

/// Attributes, and the metadata of a span as attributes `namespace.key`.
struct Attributes<'a>(&'a [Attribute], &'a [crate::trace::span::Metadata]);

impl Attributes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for attribute in self.0 {
            list.serialize_element(&KeyValue { key: &attribute.key, value: AnyValue(&attribute.value) })?;
        }
        for metadata in self.1 {
            let key = format!("{}.{}", metadata.namespace, metadata.key);
            list.serialize_element(&KeyValue { key: &key, value: AnyValue(&metadata.value) })?;
        }
        list.end()
    }
}

/// `{"key":"app.result_length","value":{"intValue":"3"}}`
#[derive(serde::Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

/// An object with one field, whose name says the type: `{"stringValue":"x"}`, `{"intValue":"3"}`, `{"boolValue":true}`,
/// `{"doubleValue":0.5}`, `{"kvlistValue":{"values":[...]}}`.
struct AnyValue<'a>(&'a Value);

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(1))?;
        match self.0 {
            Value::String(text) => object.serialize_entry("stringValue", text.as_ref())?,
            Value::Bool(value) => object.serialize_entry("boolValue", value)?,
            Value::Int(number) => object.serialize_entry("intValue", &Decimal(*number))?,
            // JSON has no word for these three, and serde_json would write null, which is refused.
            Value::Double(number) if number.is_nan() => object.serialize_entry("doubleValue", "NaN")?,
            Value::Double(f64::INFINITY) => object.serialize_entry("doubleValue", "Infinity")?,
            Value::Double(f64::NEG_INFINITY) => object.serialize_entry("doubleValue", "-Infinity")?,
            Value::Double(number) => object.serialize_entry("doubleValue", number)?,
            Value::Map(entries) => {
                object.serialize_entry("kvlistValue", &KeyValueList { values: Attributes(entries, &[]) })?;
            }
        }
        object.end()
    }
}

/// `{"values":[...]}`
#[derive(serde::Serialize)]
struct KeyValueList<'a> {
    values: Attributes<'a>,
}

struct Events<'a>(&'a [Event]);

/// `{"timeUnixNano":"1676851200002000000","name":"exception","attributes":[...]}`
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpEvent<'a> {
    time_unix_nano: Decimal<u64>,
    name: &'a str,
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
}

impl Events<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|event| OtlpEvent {
            time_unix_nano: Decimal(event.time),
            name: &event.name,
            attributes: Attributes(&event.attributes, &[]),
            dropped_attributes_count: event.dropped_attributes,
        }))
    }
}

/// A 64-bit number as a string of its decimal digits.
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

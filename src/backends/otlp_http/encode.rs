//! Finished traces as OTLP JSON. Every field has a line that says what it is; `cruddur explain
//! honeycomb` prints these lines beside the bytes of a sample request.
//!
//! ```text
//! {"resourceSpans":[{                                           the program: one per POST
//!   "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cruddur"}},...]},
//!   "scopeSpans":[{                                             a part of the program
//!     "scope":{"name":"cruddur.http","version":"0.1.0"},
//!     "spans":[{"traceId":"5b8e...","spanId":"eee1...",...},...]}]}]}
//! ```
//!
//! Protobuf's JSON mapping writes 64-bit numbers as text. Empty and zero fields of a span are left
//! out, except `status`. The value of an attribute is always written, even if it is zero.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use std::sync::Arc;

use crate::delivery::{Encoder, Payload};
use crate::text::json::Json;
use crate::trace::span::{Attribute, Event, Metadata, Scope, SpanKind, Status};
use crate::trace::{FinishedTrace, Value};

/// Encoder of finished traces as OTLP JSON.
pub(in crate::backends) struct OtlpJson {
    /// Attributes of the resource, which every payload carries.
    pub(in crate::backends) resource: Vec<Attribute>,
    /// Largest body before compression. Larger batches are divided.
    pub(in crate::backends) max_body: usize,
}

/// Body of the POST: an `ExportTraceServiceRequest`.
fn request(json: &mut Json, resource: &[Attribute], batch: &[Arc<FinishedTrace>]) {
    // The sender: one entry for each process.
    json.raw(r#"{"resourceSpans":[{"#);
    // Facts that all spans of this process share.
    json.raw(r#""resource":{"#);
    // A list of pairs, not an object. Each value names its type.
    json.raw(r#""attributes":["#).separated(resource, attribute).raw("]}");
    // The spans, grouped by the part of the program that made them.
    json.raw(r#","scopeSpans":["#);
    json.separated(scopes(batch), |json, of_this| {
        // The part of the program.
        json.raw(r#"{"scope":"#);
        scope(json, of_this);
        // The spans in a flat list. Their ids say which is the parent of which.
        json.raw(r#","spans":["#);
        let spans = batch.iter().flat_map(|trace| (0..trace.spans.len()).map(move |index| (trace, index)));
        let spans = spans.filter(|(trace, index)| trace.spans[*index].scope == of_this);
        json.separated(spans, |json, (trace, index)| span(json, trace, index)).raw("]}");
    });
    json.raw("]}]}");
}

/// `{"name":"cruddur.http","version":"0.1.0"}`
fn scope(json: &mut Json, scope: Scope) {
    // Name of the part.
    json.raw(r#"{"name":"#).string(scope.name);
    if let Some(version) = scope.version {
        // Version of the part, if it has its own.
        json.raw(r#","version":"#).string(version);
    }
    json.raw("}");
}

/// ```text
/// {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
///  "traceState":"congo=t61rcWkgMzE","parentSpanId":"00f067aa0ba902b7","flags":769,
///  "name":"GET /api/activities/home","kind":2,"startTimeUnixNano":"1676851200000000000",
///  "endTimeUnixNano":"1676851200004250000","attributes":[...],"status":{}}
/// ```
fn span(json: &mut Json, trace: &FinishedTrace, index: usize) {
    let (is_first, span) = (index == 0, &trace.spans[index]);
    // 128 bits as hex. Protobuf's own JSON mapping would write base64.
    json.raw(r#"{"traceId":"#).quoted(trace.trace_id.hex());
    // 64 bits as hex.
    json.raw(r#","spanId":"#).quoted(span.id.hex());
    if is_first && !trace.trace_state.is_empty() {
        // The caller's `tracestate`, on the first span only.
        json.raw(r#","traceState":"#).string(&trace.trace_state);
    }
    if let Some(parent) = span.parent {
        // The span around this one, or the caller's span in another process. A new trace has none.
        json.raw(r#","parentSpanId":"#).quoted(parent.hex());
    }
    let parent_is_remote = if is_first && trace.remote_parent { 512 } else { 0 };
    // 1: sampled. 2: the trace id is random. 256: bit 512 is valid. 512: the parent is in another
    // process.
    json.raw(r#","flags":"#).unsigned(u64::from(trace.flags.bits()) + 256 + parent_is_remote);
    // Of a request: method and route, not the path, so that there are few different names.
    json.raw(r#","name":"#).string(&span.name);
    // A number, because OTLP forbids the names of enums: 1 INTERNAL, 2 SERVER, 3 CLIENT.
    json.raw(r#","kind":"#).raw(match span.kind {
        SpanKind::Internal => "1",
        SpanKind::Server => "2",
        SpanKind::Client => "3",
    });
    // Nanoseconds since 1970, as text. Honeycomb refuses the batch if this is a number.
    json.raw(r#","startTimeUnixNano":""#).unsigned(span.start);
    // The start plus the time on the monotonic clock, so never earlier than the start.
    json.raw(r#"","endTimeUnixNano":""#).unsigned(span.end).raw("\"");
    if !span.attributes.is_empty() || !span.rare().metadata.is_empty() {
        // Facts about this span. OpenTelemetry's semantic conventions give the common names; names
        // with app. are ours.
        json.raw(r#","attributes":["#).separated(&span.attributes, attribute);
        json.raw(if span.attributes.is_empty() || span.rare().metadata.is_empty() { "" } else { "," });
        json.separated(&span.rare().metadata, metadata).raw("]");
    }
    // Number of attributes that were dropped, because the span had too many.
    count(json, r#","droppedAttributesCount":"#, span.rare().dropped_attributes);
    if !span.rare().events.is_empty() {
        // What happened at one moment of the span: exceptions.
        json.raw(r#","events":["#).separated(&span.rare().events, event).raw("]");
    }
    // Number of events that were dropped, because the span had too many.
    count(json, r#","droppedEventsCount":"#, span.rare().dropped_events);
    // Empty means that no error was recorded. Some receivers fail if the field is missing.
    json.raw(r#","status":{"#);
    if let Status::Error(message) = &span.rare().status {
        if !message.is_empty() {
            // The message of the exception.
            json.raw(r#""message":"#).string(message).raw(",");
        }
        // 2 is ERROR.
        json.raw(r#""code":2"#);
    }
    json.raw("}}");
}

/// `{"timeUnixNano":"1676851200002000000","name":"exception","attributes":[...]}`
fn event(json: &mut Json, event: &Event) {
    // Nanoseconds since 1970, as text.
    json.raw(r#"{"timeUnixNano":""#).unsigned(event.time);
    // Always "exception".
    json.raw(r#"","name":"#).string(&event.name);
    if !event.attributes.is_empty() {
        // exception.type, exception.message and exception.stacktrace.
        json.raw(r#","attributes":["#).separated(&event.attributes, attribute).raw("]");
    }
    // Number of attributes that were dropped, because the event had too many.
    count(json, r#","droppedAttributesCount":"#, event.dropped_attributes);
    json.raw("}");
}

/// `{"key":"app.result_length","value":{"intValue":"3"}}`
fn attribute(json: &mut Json, attribute: &Attribute) {
    json.raw(r#"{"key":""#).escaped(&attribute.key).raw(r#"","value":"#);
    value(json, &attribute.value);
    json.raw("}");
}

/// Metadata is an attribute `namespace.key`.
fn metadata(json: &mut Json, metadata: &Metadata) {
    json.raw(r#"{"key":""#).escaped(metadata.namespace).raw(".").escaped(metadata.key).raw(r#"","value":"#);
    value(json, &metadata.value);
    json.raw("}");
}

/// Object with one field, whose name is the type of the value.
fn value(json: &mut Json, value: &Value) {
    match value {
        Value::String(text) => json.raw(r#"{"stringValue":""#).escaped(text).raw("\"}"),
        Value::Bool(value) => json.raw(r#"{"boolValue":"#).bool(*value).raw("}"),
        // A 64-bit number is text, because JSON readers keep 53 bits of a number.
        Value::Int(number) => json.raw(r#"{"intValue":""#).integer(*number).raw("\"}"),
        // JSON has no NaN and no infinity. Protobuf's mapping writes them as text.
        Value::Double(number) if number.is_nan() => json.raw(r#"{"doubleValue":"NaN"}"#),
        Value::Double(f64::INFINITY) => json.raw(r#"{"doubleValue":"Infinity"}"#),
        Value::Double(f64::NEG_INFINITY) => json.raw(r#"{"doubleValue":"-Infinity"}"#),
        Value::Double(number) => json.raw(r#"{"doubleValue":"#).float(*number).raw("}"),
        Value::Map(entries) => json.raw(r#"{"kvlistValue":{"values":["#).separated(entries, attribute).raw("]}}"),
    };
}

/// Writes a count that is not zero.
fn count(json: &mut Json, name: &str, count: u32) {
    if count > 0 {
        json.raw(name).unsigned(count.into());
    }
}

/// Scopes of a batch, each once, in the order of their first spans.
fn scopes(batch: &[Arc<FinishedTrace>]) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for span in batch.iter().flat_map(|trace| &trace.spans) {
        // The program has about a dozen scopes, so a search through a list is fast enough.
        if !scopes.contains(&span.scope) {
            scopes.push(span.scope);
        }
    }
    scopes
}

impl OtlpJson {
    pub(in crate::backends) fn new(resource: Vec<Attribute>) -> Self {
        Self { resource, max_body: MAX_BODY }
    }

    /// Encodes the batch. A batch that is too large is halved until each part fits or has one trace.
    fn append(&self, batch: &[Arc<FinishedTrace>], payloads: &mut Vec<Payload>) {
        let mut json = Json::with_capacity(batch.len() * EXPECTED_BYTES_PER_TRACE);
        request(&mut json, &self.resource, batch);
        let bytes = json.into_bytes();
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

/// Largest uncompressed body that all known receivers accept.
const MAX_BODY: usize = 1 << 20;

const EXPECTED_BYTES_PER_TRACE: usize = 1600;

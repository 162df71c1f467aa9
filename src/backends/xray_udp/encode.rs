//! A span as an X-Ray document: which fact goes to which field. Every field has a line that says
//! what it is; `cruddur explain xray` prints these lines beside the bytes of a sample request.
//! `tree.rs` nests the documents and makes datagrams of them.
//!
//! ```text
//! span                                  document
//! id, parent, trace id                  id, parent_id, trace_id (with dashes)
//! start, end                            start_time, end_time: seconds with six decimals
//! kind                                  namespace: "remote" for CLIENT, "local" for INTERNAL
//! name                                  name; of a segment: the service, of a call: its host
//! http.*, url.*, server.*, client.* ..  http: request and response
//! http.response.status_code             4xx: error, 429: throttle too, 5xx: fault
//! status Error                          fault, unless the code is 4xx
//! event "exception"                     cause, and in the segment the id of that exception
//! other attributes                      annotations (indexed), at most 50 in a trace
//! attributes beyond those, maps         metadata, namespace "attributes" (not indexed)
//! metadata                              metadata (not indexed)
//! ```
//!
//! The first span of a trace is the segment. All others are subsegments, also a SERVER span.
//!
//! Specification:
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>.

use std::borrow::Cow;

use super::NAME;
use super::annotations::{Place, places, write_key};
use super::cause::{cause, exception_id, has_exception};
use super::sampler::sanitised_name;
use crate::text::first_chars;
use crate::text::json::Json;
use crate::trace::sampler::Reason;
use crate::trace::span::{Attribute, Metadata, SpanData, SpanKind};
use crate::trace::{FinishedTrace, Value};

/// Span to encode, with everything that its document needs.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Name of the segment if no sampler has chosen one.
    pub(super) service_name: &'a str,
    /// Log group with the log lines of our requests.
    pub(super) log_group: Option<&'a str>,
    pub(super) trace: &'a FinishedTrace,
    pub(super) index: usize,
    /// Number of attributes that may be annotations.
    pub(super) max_annotations: usize,
    /// False for a document inside its parent's.
    pub(super) is_outermost: bool,
    pub(super) trim: Trim,
}

/// Parts that a document leaves out. Each step includes the ones before it.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Trim {
    Nothing,
    Subsegments,
    Metadata,
    Annotations,
    /// All exceptions but the beginning of the first.
    Exceptions,
}

/// Segment or subsegment:
///
/// ```text
/// {"id":"70de5b6f19ff9a0a","trace_id":"1-581cf771-a006649127e371903a2de979",
///  "name":"backend-flask","start_time":1478293361.271,"end_time":1478293361.449,
///  "http":{...},"aws":{...},"service":{...},
///  "annotations":{"route":"data_handle"},"subsegments":[{"id":"53995c3f42cd8ad8",...}]}
/// ```
///
/// `subsegments` writes the list of the documents below this one, if it has any.
pub(super) fn document(json: &mut Json, part: Part<'_>, subsegments: Option<impl FnOnce(&mut Json)>) {
    let Part { trace, index, trim, .. } = part;
    let (is_segment, span) = (index == 0, &trace.spans[index]);
    // Id of the span. It comes first, because the daemon logs the beginning of a refused document.
    json.raw(r#"{"id":"#).quoted(span.id.hex());
    if part.is_outermost {
        // The trace id of OTLP with dashes. Its first 8 digits are the time of the start. X-Ray
        // refuses traces that are older than 30 days.
        json.raw(r#","trace_id":"#).quoted(trace.trace_id.xray());
        if let Some(parent) = span.parent {
            // Id of the span around this one, or of the caller's span in another process.
            json.raw(r#","parent_id":"#).quoted(parent.hex());
        }
        if !is_segment {
            // Only on a subsegment that is not inside its parent's document.
            json.raw(r#","type":"subsegment""#);
        }
    }
    // The segment has the name of the service: a node of the service map, and a name for sampling
    // rules. A subsegment has the name of its span, or the host that it called.
    json.raw(r#","name":"#).string(&name(part));
    // Seconds since 1970, with six decimals.
    json.raw(r#","start_time":"#);
    seconds(json, span.start);
    // Without this field, X-Ray shows the segment as still in progress.
    json.raw(r#","end_time":"#);
    seconds(json, span.end);
    let namespace = match span.kind {
        SpanKind::Server => None,
        SpanKind::Client => Some("remote"),
        SpanKind::Internal => Some("local"),
    };
    if let Some(namespace) = namespace {
        // "local" is work of this process. "remote" is a call, which the service map draws as a node.
        json.raw(r#","namespace":"#).quoted(namespace);
    }
    let facts = HttpFacts::of(span);
    http(json, &facts);
    // One colour of the service map each: 4xx is the client's error, 429 is throttled too, 5xx and
    // a failed span are a fault of ours.
    let status = facts.status;
    let is_client_error = status.is_some_and(|status| (400..500).contains(&status));
    json.raw(if is_client_error { r#","error":true"# } else { "" });
    json.raw(if status == Some(429) { r#","throttle":true"# } else { "" });
    let is_server_error = status.is_some_and(|status| status >= 500);
    let is_fault = is_server_error || (span.failed() && !is_client_error);
    json.raw(if is_fault { r#","fault":true"# } else { "" });
    if has_exception(span) {
        // The exceptions of this span.
        json.raw(r#","cause":"#);
        cause(json, span, trim >= Trim::Exceptions);
    } else if is_segment
        && is_server_error
        && let Some(id) = exception_below(trace)
    {
        // Id of the exception in a subsegment that made this request fail.
        json.raw(r#","cause":"#).quoted(id);
    }
    if is_segment {
        aws(json, part);
        // About the program.
        json.raw(r#","service":{"#);
        // Version of the program.
        json.raw(r#""version":"#).quoted(env!("CARGO_PKG_VERSION"));
        // What it runs on.
        json.raw(r#","runtime":"rustc"}"#);
    }
    let (mut has_annotations, mut has_others) = (false, false);
    for (attribute, place) in places(span, part.max_annotations) {
        if place == Place::Annotation && trim < Trim::Annotations {
            if has_annotations {
                json.raw(",");
            } else {
                // Indexed: a filter expression finds the trace by them. At most 50 a trace.
                json.raw(r#","annotations":{"#);
            }
            annotation(json, attribute);
            has_annotations = true;
        }
        has_others |= place == Place::Metadata;
    }
    json.raw(if has_annotations { "}" } else { "" });
    if trim < Trim::Metadata && (has_others || !span.rare().metadata.is_empty()) {
        let places = places(span, part.max_annotations);
        let others = places.filter_map(|(attribute, place)| (place == Place::Metadata).then_some(attribute));
        // Stored with the trace, but not indexed.
        json.raw(r#","metadata":{"#);
        metadata(json, &span.rare().metadata, others);
        json.raw("}");
    }
    if let Some(subsegments) = subsegments {
        // The child spans, nested.
        json.raw(r#","subsegments":["#);
        subsegments(json);
        json.raw("]");
    }
    json.raw("}");
}

/// ```text
/// {"request":{"method":"GET","url":"http://host/path","user_agent":"curl/8",
///   "client_ip":"203.0.113.7"},"response":{"status":200,"content_length":217}}
/// ```
fn http(json: &mut Json, facts: &HttpFacts<'_>) {
    fn short(text: &str) -> &str {
        first_chars(text, MAX_STRING)
    }
    let Some(method) = facts.method.map(short) else { return };
    // The one place for what OTLP says in a dozen attributes.
    json.raw(r#","http":{"#);
    // The request.
    json.raw(r#""request":{"#);
    // http.request.method
    json.raw(r#""method":"#).string(method);
    if let Some(url) = url(facts) {
        // Scheme, host and path, without the query, which may hold secrets.
        json.raw(r#","url":"#).string(short(&url));
    }
    if let Some(user_agent) = facts.user_agent.map(short) {
        // user_agent.original
        json.raw(r#","user_agent":"#).string(user_agent);
    }
    if let Some(client) = facts.client.map(short) {
        // client.address
        json.raw(r#","client_ip":"#).string(client);
        // The address comes from a proxy's header, so it may be invented.
        let is_forwarded = facts.client != facts.peer;
        json.raw(if is_forwarded { r#","x_forwarded_for":true"# } else { "" });
    }
    // The answer.
    json.raw(r#"},"response":{"#);
    if let Some(status) = facts.status {
        // http.response.status_code
        json.raw(r#""status":"#).integer(status);
    }
    if let Some(size) = facts.size {
        json.raw(if facts.status.is_some() { "," } else { "" });
        // http.response.body.size
        json.raw(r#""content_length":"#).integer(size);
    }
    json.raw("}}");
}

/// ```text
/// {"xray":{"sdk":"cruddur-xray for Rust","sdk_version":"0.1.0","auto_instrumentation":false,
///  "sampling_rule_name":"Cruddur"},"cloudwatch_logs":[{"log_group":"cruddur"}]}
/// ```
fn aws(json: &mut Json, part: Part<'_>) {
    // About the sender.
    json.raw(r#","aws":{"#);
    // The program that recorded the trace.
    json.raw(r#""xray":{"#);
    // The program's own name: it is no SDK of AWS.
    json.raw(r#""sdk":"cruddur-xray for Rust""#);
    // Version of the program.
    json.raw(r#","sdk_version":"#).quoted(env!("CARGO_PKG_VERSION"));
    // True for spans that an agent adds to a program from outside.
    json.raw(r#","auto_instrumentation":false"#);
    if let Some(Reason::Rule { name, .. }) = part.trace.own_decision(NAME).map(|own| &own.decision.reason) {
        // The sampling rule that took this trace. X-Ray counts by it.
        json.raw(r#","sampling_rule_name":"#).string(name);
    }
    json.raw("}");
    if let Some(log_group) = part.log_group {
        // Makes the console link the trace to its log lines.
        json.raw(r#","cloudwatch_logs":[{"#);
        // The group to which [cloudwatch] sends them.
        json.raw(r#""log_group":"#).string(log_group).raw("}]");
    }
    json.raw("}");
}

/// `"app_result_length":3`
fn annotation(json: &mut Json, attribute: &Attribute) {
    write_key(json, &attribute.key);
    json.raw(":");
    match &attribute.value {
        Value::String(text) => _ = json.string(first_chars(text, MAX_ANNOTATION_VALUE)),
        other => value(json, other),
    }
}

/// `"namespace":{"key":{"now":"...","result-size":1}},"attributes":{"app.map":{"k":"v"}}`
fn metadata<'a>(json: &mut Json, all: &[Metadata], others: impl Iterator<Item = &'a Attribute> + Clone) {
    // One object for each namespace, with all its entries.
    let is_first_of_namespace =
        |&index: &usize| !all[..index].iter().any(|before| before.namespace == all[index].namespace);
    json.separated((0..all.len()).filter(is_first_of_namespace), |json, index| {
        let namespace = all[index].namespace;
        let of_namespace = all.iter().filter(|metadata| metadata.namespace == namespace);
        json.string(namespace).raw(":{");
        json.separated(of_namespace, |json, metadata| member(json, metadata.key, &metadata.value)).raw("}");
    });
    if others.clone().next().is_some() {
        // Attributes that cannot be annotations. Two equal keys in an object would hide one.
        let is_taken = all.iter().any(|metadata| metadata.namespace == "attributes");
        json.raw(if all.is_empty() { "" } else { "," });
        json.quoted(if is_taken { "other attributes" } else { "attributes" }).raw(":{");
        json.separated(others, |json, attribute| member(json, &attribute.key, &attribute.value)).raw("}");
    }
}

/// `"app.map":{"k":"v"}`
fn member(json: &mut Json, key: &str, it: &Value) {
    json.string(key).raw(":");
    value(json, it);
}

/// Plain JSON, without OTLP's names of types: `3`, `"text"`, `true`, `{"k":"v"}`. X-Ray takes the
/// type from the form of the value.
fn value(json: &mut Json, it: &Value) {
    match it {
        Value::String(text) => json.string(text),
        Value::Bool(value) => json.bool(*value),
        Value::Int(number) => json.integer(*number),
        Value::Double(number) if number.is_finite() => json.float(*number),
        // JSON has no NaN and no infinity.
        Value::Double(number) => json.quoted(number.to_string()),
        Value::Map(entries) => {
            json.raw("{").separated(entries, |json, entry| member(json, &entry.key, &entry.value)).raw("}")
        }
    };
}

/// Writes nanoseconds since 1970 as seconds with at most six decimals: `1478293361.271`.
fn seconds(json: &mut Json, nanos: u64) {
    let micros = nanos.saturating_add(500) / 1000;
    let mut digits = itoa::Buffer::new();
    // X-Ray parses a double. Until the year 2106 each microsecond has its own double, and the
    // digits below are the shortest that parse to it. From September 2001 on there are 16 of them. A
    // time outside this range comes from a wrong clock.
    match digits.format(micros).as_bytes().as_chunks::<16>() {
        ([digits], []) if micros < 1_000_000 << 32 => {
            let mut text = *b"##########.######";
            text[..10].copy_from_slice(&digits[..10]);
            text[11..].copy_from_slice(&digits[10..]);
            // The last zeros are left out, but one decimal stays: `1478293361.0`.
            let last = text.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
            json.raw_bytes(&text[..=last.max(11)]);
        }
        _ => _ = json.float(micros as f64 / 1_000_000.0),
    }
}

/// Returns the name of a document. The sampler may have chosen the service name by the host of the
/// request.
fn name(part: Part<'_>) -> Cow<'_, str> {
    let span = &part.trace.spans[part.index];
    if part.index == 0 {
        return Cow::Borrowed(part.trace.own_decision(NAME).map_or(part.service_name, |own| &own.service_name));
    }
    let name = match (span.kind, span.text("server.address")) {
        // The service map draws one node for each name, so calls to a host share a node.
        (SpanKind::Client, Some(host)) => host,
        _ => &span.name,
    };
    match sanitised_name(name) {
        name if name.is_empty() => Cow::Borrowed("unnamed"),
        name => name,
    }
}

/// Attributes of a span that the http block replaces, found in one pass.
#[derive(Default)]
struct HttpFacts<'a> {
    method: Option<&'a str>,
    full_url: Option<&'a str>,
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<i64>,
    path: Option<&'a str>,
    user_agent: Option<&'a str>,
    client: Option<&'a str>,
    peer: Option<&'a str>,
    status: Option<i64>,
    size: Option<i64>,
}

impl<'a> HttpFacts<'a> {
    fn of(span: &'a SpanData) -> Self {
        let mut facts = Self::default();
        for Attribute { key, value } in &span.attributes {
            match (key.as_ref(), value) {
                ("http.request.method", Value::String(text)) => facts.method = Some(text),
                ("url.full", Value::String(text)) => facts.full_url = Some(text),
                ("url.scheme", Value::String(text)) => facts.scheme = Some(text),
                ("server.address", Value::String(text)) => facts.host = Some(text),
                ("server.port", Value::Int(number)) => facts.port = Some(*number),
                ("url.path", Value::String(text)) => facts.path = Some(text),
                ("user_agent.original", Value::String(text)) => facts.user_agent = Some(text),
                ("client.address", Value::String(text)) => facts.client = Some(text),
                ("network.peer.address", Value::String(text)) => facts.peer = Some(text),
                ("http.response.status_code", Value::Int(number)) => facts.status = Some(*number),
                ("http.response.body.size", Value::Int(number)) => facts.size = Some(*number),
                _ => {}
            }
        }
        facts
    }
}

/// Returns the URL without its query, which may hold secrets.
fn url<'a>(facts: &HttpFacts<'a>) -> Option<Cow<'a, str>> {
    // A CLIENT span has the whole URL in one attribute. A SERVER span has its parts.
    if let Some(full) = facts.full_url {
        return Some(Cow::Borrowed(full.split(['?', '#']).next().unwrap_or(full)));
    }
    let (scheme, path) = (facts.scheme?, facts.path?);
    let host = facts.host.unwrap_or("localhost");
    let (open, close) = if host.contains(':') { ("://[", "]") } else { ("://", "") };
    let usual = if scheme == "https" { 443 } else { 80 };
    let mut digits = itoa::Buffer::new();
    let port = facts.port.filter(|port| *port != usual).map_or("", |number| digits.format(number));
    let colon = if port.is_empty() { "" } else { ":" };
    Some(Cow::Owned([scheme, open, host, close, colon, port, path].concat()))
}

/// Returns the id of the first exception in a trace.
fn exception_below(trace: &FinishedTrace) -> Option<String> {
    trace.spans.iter().find(|span| has_exception(span)).map(|span| exception_id(span, 0))
}

/// Limit in characters of strings in the http block and in exceptions.
pub(super) const MAX_STRING: usize = 250;
pub(super) const MAX_ANNOTATION_VALUE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::id::IdSource;

    #[test]
    fn seconds_are_written_as_the_double_that_x_ray_reads() {
        let source = IdSource::new();
        let random = || u64::from_ne_bytes(source.bytes());
        let recent = (0..3000).map(|_| 1_478_293_361_000_000_000 + random() % 1_000_000_000_000_000);
        for nanos in
            recent.chain([0, 499, 500, 1_000_000_000, 1_000_000_001_000, u64::MAX]).chain((0..300).map(|_| random()))
        {
            let mut json = Json::default();
            seconds(&mut json, nanos);
            let double = (nanos.saturating_add(500) / 1000) as f64 / 1_000_000.0;
            assert_eq!(
                String::from_utf8(json.into_bytes()).unwrap(),
                serde_json::to_string(&double).unwrap(),
                "{nanos}"
            );
        }
    }
}

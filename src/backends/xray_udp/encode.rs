//! A span as an X-Ray document: which fact goes to which field. `tree.rs` nests the documents and
//! makes datagrams of them.
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

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::NAME;
use super::cause::{Cause, exception_id, exceptions, has_exception};
use super::sampler::sanitised_name;
use crate::plain_json::Plain;
use crate::text::first_chars;
use crate::trace::sampler::Reason;
use crate::trace::span::{Attribute, Metadata, SpanData, SpanKind};
use crate::trace::{FinishedTrace, Value};

/// Encoder of finished traces as X-Ray documents.
#[derive(Clone)]
pub(super) struct Documents {
    /// Name of the segment if no sampler has chosen one.
    pub(super) service_name: String,
    /// Log group with the log lines of our requests, which X-Ray's console opens from a trace.
    pub(super) log_group: Option<String>,
}

/// Limit in characters of strings in the http block and in exceptions.
pub(super) const MAX_STRING: usize = 250;
pub(super) const MAX_ANNOTATION_VALUE: usize = 1000;
const MAX_ANNOTATION_KEY: usize = 500;

/// Attributes that the http block replaces. `url.query` is not sent at all, because it may hold
/// secrets.
const IN_HTTP_BLOCK: [&str; 14] = [
    "http.request.method",
    "http.response.status_code",
    "http.response.body.size",
    "url.full",
    "url.path",
    "url.query",
    "url.scheme",
    "server.address",
    "server.port",
    "client.address",
    "network.peer.address",
    "network.peer.port",
    "user_agent.original",
    "error.type",
];

/// Segment or subsegment, with its fields in the order of the bytes:
///
/// ```text
/// {"id":"70de5b6f19ff9a0a","trace_id":"1-581cf771-a006649127e371903a2de979",
///  "name":"backend-flask","start_time":1478293361.271,"end_time":1478293361.449,
///  "http":{...},"aws":{...},"service":{...},
///  "annotations":{"route":"data_handle"},"subsegments":[{"id":"53995c3f42cd8ad8",...}]}
/// ```
#[derive(serde::Serialize)]
pub(super) struct Segment<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    name: Cow<'a, str>,
    start_time: Seconds,
    end_time: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Http<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    error: bool,
    #[serde(skip_serializing_if = "is_false")]
    throttle: bool,
    #[serde(skip_serializing_if = "is_false")]
    fault: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<Aws<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceBlock>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub(super) annotations: Annotations<'a>,
    #[serde(skip_serializing_if = "MetadataBlock::is_empty")]
    pub(super) metadata: MetadataBlock<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) subsegments: Vec<Self>,
}

impl<'a> Segment<'a> {
    /// Maps a span to a subsegment, as it stands inside its parent's document.
    pub(super) fn from_span(span: &'a SpanData, attributes: &'a Indexed<'a>) -> Self {
        let status = int(span, "http.response.status_code");
        let is_client_error = status.is_some_and(|status| (400..500).contains(&status));
        let exceptions = exceptions(span);
        Self {
            id: span.id.hex().as_str().to_owned(),
            trace_id: None,
            parent_id: None,
            r#type: None,
            name: Cow::Owned(subsegment_name(span)),
            start_time: Seconds(span.start),
            end_time: Seconds(span.end),
            namespace: match span.kind {
                SpanKind::Server => None,
                SpanKind::Client => Some("remote"),
                SpanKind::Internal => Some("local"),
            },
            http: Http::from_span(span),
            error: is_client_error,
            throttle: status == Some(429),
            fault: is_server_error(span) || (span.failed() && !is_client_error),
            cause: (!exceptions.is_empty()).then_some(Cause::Here { exceptions }),
            aws: None,
            service: None,
            annotations: Annotations(&attributes.annotations),
            metadata: MetadataBlock { metadata: &span.metadata, others: &attributes.others },
            subsegments: Vec::new(),
        }
    }

    /// Adds the fields that only the segment has: the name of the service, the SDK, the version. A
    /// segment with a server error names the exception of a subsegment as its cause.
    pub(super) fn with_service(self, documents: &'a Documents, trace: &'a FinishedTrace) -> Self {
        let own = trace.own_decision(NAME);
        let cause_below = || {
            let failed = trace.spans.iter().find(|span| has_exception(span));
            failed.filter(|_| is_server_error(&trace.spans[0])).map(|span| Cause::There(exception_id(span, 0)))
        };
        Self {
            name: Cow::Borrowed(own.map_or(&documents.service_name, |own| &own.service_name)),
            cause: self.cause.or_else(cause_below),
            aws: Some(Aws {
                xray: XRaySdk {
                    sdk: "cruddur-xray for Rust",
                    sdk_version: env!("CARGO_PKG_VERSION"),
                    auto_instrumentation: false,
                    sampling_rule_name: own.and_then(|own| match &own.decision.reason {
                        Reason::Rule { name, .. } => Some(&**name),
                        _ => None,
                    }),
                },
                cloudwatch_logs: documents.log_group.as_deref().map(|log_group| [LogGroup { log_group }]),
            }),
            service: Some(ServiceBlock { version: env!("CARGO_PKG_VERSION"), runtime: "rustc" }),
            ..self
        }
    }

    /// Adds the fields of a document outside its parent's: the ids of its trace and parent, and for
    /// a subsegment its type.
    pub(super) fn on_its_own(self, trace: &FinishedTrace, index: usize) -> Self {
        Self {
            trace_id: Some(trace.trace_id.xray()),
            parent_id: trace.spans[index].parent.map(|parent| parent.hex().as_str().to_owned()),
            r#type: (index > 0).then_some("subsegment"),
            ..self
        }
    }
}

fn is_server_error(span: &SpanData) -> bool {
    int(span, "http.response.status_code").is_some_and(|status| status >= 500)
}

/// Returns the name of a subsegment: for an outgoing call its host, else the name of the span.
fn subsegment_name(span: &SpanData) -> String {
    let name = match (span.kind, text(span, "server.address")) {
        (SpanKind::Client, Some(host)) => host,
        _ => &span.name,
    };
    let name = sanitised_name(name);
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Seconds since 1970 with six decimals.
struct Seconds(u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(((self.0 + 500) / 1000) as f64 / 1_000_000.0)
    }
}

/// ```text
/// {"request":{"method":"GET","url":"http://host/path","user_agent":"curl/8",
///   "client_ip":"203.0.113.7"},"response":{"status":200,"content_length":217}}
/// ```
#[derive(serde::Serialize)]
struct Http<'a> {
    request: HttpRequest<'a>,
    response: HttpResponse,
}

#[derive(serde::Serialize)]
struct HttpRequest<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    x_forwarded_for: bool,
}

#[derive(serde::Serialize)]
struct HttpResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_length: Option<i64>,
}

impl<'a> Http<'a> {
    fn from_span(span: &'a SpanData) -> Option<Self> {
        let short = |key| text(span, key).map(|text| first_chars(text, MAX_STRING));
        let (client, peer) = (text(span, "client.address"), text(span, "network.peer.address"));
        Some(Self {
            request: HttpRequest {
                method: short("http.request.method")?,
                url: url(span).map(|url| first_chars(&url, MAX_STRING).to_owned()),
                user_agent: short("user_agent.original"),
                client_ip: short("client.address"),
                x_forwarded_for: client.is_some() && client != peer,
            },
            response: HttpResponse {
                status: int(span, "http.response.status_code"),
                content_length: int(span, "http.response.body.size"),
            },
        })
    }
}

/// Returns the URL without its query, which may hold secrets.
fn url(span: &SpanData) -> Option<String> {
    if let Some(full) = text(span, "url.full") {
        return Some(full.split(['?', '#']).next().unwrap_or(full).to_owned());
    }
    let (scheme, path) = (text(span, "url.scheme")?, text(span, "url.path")?);
    let host = text(span, "server.address").unwrap_or("localhost");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let usual = if scheme == "https" { 443 } else { 80 };
    Some(match int(span, "server.port").filter(|port| *port != usual) {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    })
}

/// ```text
/// {"xray":{"sdk":"cruddur-xray for Rust","sdk_version":"0.1.0","auto_instrumentation":false,
///  "sampling_rule_name":"Cruddur"},"cloudwatch_logs":[{"log_group":"cruddur"}]}
/// ```
#[derive(serde::Serialize)]
struct Aws<'a> {
    xray: XRaySdk<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloudwatch_logs: Option<[LogGroup<'a>; 1]>,
}

#[derive(serde::Serialize)]
struct XRaySdk<'a> {
    sdk: &'static str,
    sdk_version: &'static str,
    auto_instrumentation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_rule_name: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct LogGroup<'a> {
    log_group: &'a str,
}

/// `{"version":"0.1.0","runtime":"rustc"}`
#[derive(serde::Serialize)]
struct ServiceBlock {
    version: &'static str,
    runtime: &'static str,
}

/// Attributes outside the http block, divided into those that X-Ray indexes and the others.
pub(super) struct Indexed<'a> {
    /// Indexed attributes, with the keys that X-Ray accepts.
    pub(super) annotations: Vec<(String, &'a Value)>,
    others: Vec<&'a Attribute>,
}

impl<'a> Indexed<'a> {
    /// Divides the attributes of a span. At most `most` text, numbers and booleans are indexed. Two
    /// keys that differ only in forbidden characters would become one, so the second is not
    /// indexed.
    pub(super) fn new(span: &'a SpanData, most: usize) -> Self {
        let mut annotations: Vec<(String, &Value)> = Vec::new();
        let mut others = Vec::new();
        let not_in_http_block = |attribute: &&Attribute| !IN_HTTP_BLOCK.contains(&attribute.key.as_ref());
        for attribute in span.attributes.iter().filter(not_in_http_block) {
            let key = annotation_key(&attribute.key);
            let is_taken = annotations.iter().any(|(taken, _)| *taken == key);
            if annotations.len() < most && can_be_annotation(&attribute.value) && !is_taken {
                annotations.push((key, &attribute.value));
            } else {
                others.push(attribute);
            }
        }
        Self { annotations, others }
    }
}

fn can_be_annotation(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) | Value::Int(_) => true,
        Value::Double(number) => number.is_finite(),
        Value::Map(_) => false,
    }
}

fn annotation_key(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let key: String = key.chars().take(MAX_ANNOTATION_KEY).map(allowed).collect();
    if key.is_empty() { "_".to_owned() } else { key }
}

/// `{"app_result_length":3}`: keys are letters, digits and `_`.
#[derive(Default)]
pub(super) struct Annotations<'a>(&'a [(String, &'a Value)]);

impl Annotations<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Annotations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            match value {
                Value::String(text) => object.serialize_entry(key, first_chars(text, MAX_ANNOTATION_VALUE))?,
                other => object.serialize_entry(key, &Plain(other))?,
            }
        }
        object.end()
    }
}

/// `{"namespace":{"key":{"now":"...","result-size":1}},"attributes":{"app.map":{"k":"v"}}}`
#[derive(Default)]
pub(super) struct MetadataBlock<'a> {
    metadata: &'a [Metadata],
    /// Attributes that are not indexed.
    others: &'a [&'a Attribute],
}

impl MetadataBlock<'_> {
    fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.others.is_empty()
    }
}

impl Serialize for MetadataBlock<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        let mut written: Vec<&str> = Vec::new();
        for Metadata { namespace, .. } in self.metadata {
            if !written.contains(namespace) {
                written.push(namespace);
                let entries = self.metadata.iter().filter(|metadata| metadata.namespace == *namespace);
                let entries = entries.map(|metadata| (metadata.key, Plain(&metadata.value)));
                object.serialize_entry(namespace, &Object(entries))?;
            }
        }
        if !self.others.is_empty() {
            let name = if written.contains(&"attributes") { "other attributes" } else { "attributes" };
            let entries = self.others.iter().map(|attribute| (attribute.key.as_ref(), Plain(&attribute.value)));
            object.serialize_entry(name, &Object(entries))?;
        }
        object.end()
    }
}

/// One object with these entries.
struct Object<I>(I);

impl<'a, I: Iterator<Item = (&'a str, Plain<'a>)> + Clone> Serialize for Object<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

fn text<'a>(span: &'a SpanData, key: &str) -> Option<&'a str> {
    match span.attribute(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn int(span: &SpanData, key: &str) -> Option<i64> {
    match span.attribute(key) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

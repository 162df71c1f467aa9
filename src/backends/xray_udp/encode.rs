//! Finished traces as X-Ray documents. Every struct here borrows and is written in the order of its fields.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::NAME;
use super::cause::{Cause, exception_id, exceptions, has_exception};
use super::sampler::sanitised_name;

use crate::delivery::{Encoder, Payload, Problem};
use crate::plain_json::Plain;
use crate::text::first_chars;
use crate::trace::sampler::Reason;
use crate::trace::span::{Attribute, Metadata, SpanData, SpanKind};
use crate::trace::{FinishedTrace, Value};

/// Makes X-Ray documents of finished traces.
#[derive(Clone)]
pub(super) struct Documents {
    /// The name for traces that no sampler has named.
    pub(super) service_name: String,
    /// The log group that holds the lines of our requests: the console links a trace to it.
    pub(super) log_group: Option<String>,
}

/// The header of every datagram.
const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";
/// The limit is "64 kB"; this is below either reading of it, and below what a datagram holds.
const MAX_DOCUMENT: usize = 64_000;
/// Strings of the http block.
pub(super) const MAX_STRING: usize = 250;
pub(super) const MAX_ANNOTATION_VALUE: usize = 1000;
const MAX_ANNOTATION_KEY: usize = 500;
/// Annotations that are indexed, in a whole trace.
const MAX_ANNOTATIONS: usize = 50;
/// How deep subsegments are nested; deeper ones are sent on their own.
const MAX_DEPTH: usize = 32;

/// Attributes that have a place of their own in the document.
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

impl Encoder<FinishedTrace> for Documents {
    /// One datagram per trace, or more if it is too large for one.
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        let mut payloads = Vec::with_capacity(batch.len());
        for trace in batch {
            let tree = Tree::new(self, trace);
            // The segment, and spans whose parent is nowhere in the trace: they hang on nothing, and are sent by themselves.
            for index in 0..trace.spans.len() {
                if index == 0 || tree.nodes[index].parent.is_none() {
                    tree.encode(index, &mut payloads);
                }
            }
        }
        payloads
    }
}

/// A trace, and what hangs on what.
struct Tree<'a> {
    documents: &'a Documents,
    trace: &'a FinishedTrace,
    nodes: Vec<SpanNode<'a>>,
}

/// A span's place in the tree.
struct SpanNode<'a> {
    parent: Option<usize>,
    children: Vec<usize>,
    /// How many spans there are in it and below it.
    size: usize,
    /// How many levels there are in it and below it.
    depth: usize,
    /// Attributes that are indexed, under the keys they have there.
    annotations: Vec<(String, &'a Value)>,
    /// Attributes that have no other place.
    others: Vec<&'a Attribute>,
}

/// What a document goes without.
#[derive(Clone, Copy, Default)]
struct Trim {
    subsegments: bool,
    metadata: bool,
    annotations: bool,
    /// All exceptions but the beginning of the first.
    exceptions: bool,
}

impl<'a> Tree<'a> {
    fn new(documents: &'a Documents, trace: &'a FinishedTrace) -> Self {
        let mut left = MAX_ANNOTATIONS;
        let mut places = HashMap::with_capacity(trace.spans.len());
        let mut nodes: Vec<SpanNode<'a>> = Vec::with_capacity(trace.spans.len());
        for (index, span) in trace.spans.iter().enumerate() {
            let (annotations, others) = divide(span, left);
            left -= annotations.len();
            // Spans begin after their parents, so a parent stands before its children; anything else is no tree.
            let parent = span.parent.and_then(|parent| places.get(&parent).copied());
            places.insert(span.id, index);
            nodes.push(SpanNode { parent, children: Vec::new(), size: 1, depth: 1, annotations, others });
        }
        for index in (1..nodes.len()).rev() {
            let SpanNode { parent, size, depth, .. } = nodes[index];
            if let Some(parent) = parent {
                let parent = &mut nodes[parent];
                parent.children.insert(0, index);
                parent.size += size;
                parent.depth = parent.depth.max(depth + 1);
            }
        }
        Self { documents, trace, nodes }
    }

    /// The document of a span with all below it; if that is too large, or too deep, what is below goes first, on its own.
    fn encode(&self, index: usize, payloads: &mut Vec<Payload>) {
        let mut open = vec![(index, false)];
        while let Some((index, children_are_sent)) = open.pop() {
            if children_are_sent {
                payloads.push(self.alone(index));
                continue;
            }
            if self.nodes[index].depth <= MAX_DEPTH {
                let whole = self.datagram(index, Trim::default());
                if fits(&whole) {
                    payloads.push(self.payload(whole, self.nodes[index].size, None));
                    continue;
                }
            }
            open.push((index, true));
            open.extend(self.nodes[index].children.iter().rev().map(|&child| (child, false)));
        }
    }

    /// A span without what is below it, and without as much of its own as makes it fit.
    fn alone(&self, index: usize) -> Payload {
        let mut trim = Trim { subsegments: true, ..Trim::default() };
        let mut bytes = self.datagram(index, trim);
        let mut left_out = Vec::new();
        for what in ["metadata", "annotations", "exceptions"] {
            if fits(&bytes) {
                break;
            }
            match what {
                "metadata" => trim.metadata = true,
                "annotations" => trim.annotations = true,
                _ => trim.exceptions = true,
            }
            left_out.push(what);
            bytes = self.datagram(index, trim);
        }
        let trimmed = (!left_out.is_empty()).then(|| {
            let (name, what) = (first_chars(&self.trace.spans[index].name, MAX_STRING), left_out.join(" and "));
            let what =
                format!("a document of more than {MAX_DOCUMENT} bytes went without its {what}; it is that of {name:?}");
            Problem::new("trimmed", what)
        });
        self.payload(bytes, 1, trimmed)
    }

    fn payload(&self, bytes: Vec<u8>, items: usize, trimmed: Option<Problem>) -> Payload {
        Payload { bytes, items, traces: vec![self.trace.trace_id], trimmed }
    }

    fn datagram(&self, index: usize, trim: Trim) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(HEADER);
        serde_json::to_writer(&mut bytes, &self.segment(index, true, trim))
            .expect("writing to memory cannot fail, and no Serialize below returns an error of its own");
        bytes
    }

    fn segment(&self, index: usize, outermost: bool, trim: Trim) -> Segment<'_> {
        let (trace, span) = (self.trace, &self.trace.spans[index]);
        let is_segment = index == 0;
        let node = &self.nodes[index];
        let exceptions = exceptions(span, trim.exceptions);
        let status = int(span, "http.response.status_code");
        let server_error = status.is_some_and(|status| status >= 500);
        let own = trace.own_decision(NAME);
        Segment {
            id: span.id.hex().as_str().to_owned(),
            trace_id: outermost.then(|| trace.trace_id.xray()),
            parent_id: span.parent.filter(|_| outermost).map(|parent| parent.hex().as_str().to_owned()),
            r#type: (outermost && !is_segment).then_some("subsegment"),
            name: if is_segment {
                Cow::Borrowed(own.map_or(&self.documents.service_name, |own| &own.service_name))
            } else {
                Cow::Owned(subsegment_name(span))
            },
            start_time: Seconds(span.start),
            end_time: Seconds(span.end),
            namespace: match span.kind {
                SpanKind::Server => None,
                SpanKind::Client => Some("remote"),
                SpanKind::Internal => Some("local"),
            },
            http: Http::of(span),
            error: status.is_some_and(|status| (400..500).contains(&status)),
            throttle: status == Some(429),
            fault: server_error || (span.failed() && !status.is_some_and(|status| (400..500).contains(&status))),
            cause: if !exceptions.is_empty() {
                Some(Cause::Here { exceptions })
            } else if is_segment && server_error {
                trace.spans.iter().find(|span| has_exception(span)).map(|span| Cause::There(exception_id(span, 0)))
            } else {
                None
            },
            aws: is_segment.then(|| Aws {
                xray: XRay {
                    sdk: "cruddur-xray for Rust",
                    sdk_version: env!("CARGO_PKG_VERSION"),
                    auto_instrumentation: false,
                    sampling_rule_name: own.and_then(|own| match &own.decision.reason {
                        Reason::Rule { name, .. } => Some(&**name),
                        _ => None,
                    }),
                },
                cloudwatch_logs: self.documents.log_group.as_deref().map(|log_group| [LogGroup { log_group }]),
            }),
            service: is_segment.then_some(Service { version: env!("CARGO_PKG_VERSION"), runtime: "rustc" }),
            annotations: Annotations(if trim.annotations { &[] } else { &node.annotations }),
            metadata: if trim.metadata {
                MetadataJson { metadata: &[], others: &[] }
            } else {
                MetadataJson { metadata: &span.metadata, others: &node.others }
            },
            subsegments: if trim.subsegments {
                Vec::new()
            } else {
                node.children.iter().map(|&child| self.segment(child, false, trim)).collect()
            },
        }
    }
}

/// A segment or, below one, a subsegment. One that stands on its own says which trace and parent it belongs to.
#[derive(serde::Serialize)]
struct Segment<'a> {
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
    cause: Option<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<Aws<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations<'a>,
    #[serde(skip_serializing_if = "MetadataJson::is_empty")]
    metadata: MetadataJson<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subsegments: Vec<Self>,
}

/// Seconds since 1970 with six decimals.
struct Seconds(u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(((self.0 + 500) / 1000) as f64 / 1_000_000.0)
    }
}

/// `{"request":{"method":"GET","url":"http://host/path","user_agent":"curl/8","client_ip":"203.0.113.7"},
/// "response":{"status":200,"content_length":217}}`
#[derive(serde::Serialize)]
struct Http<'a> {
    request: HttpRequest<'a>,
    response: HttpResponse,
}

#[derive(serde::Serialize)]
struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
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
    fn of(span: &'a SpanData) -> Option<Self> {
        let method = text(span, "http.request.method")?;
        let (client, peer) = (text(span, "client.address"), text(span, "network.peer.address"));
        Some(Self {
            request: HttpRequest {
                method: Some(first_chars(method, MAX_STRING)),
                url: url(span).map(|url| first_chars(&url, MAX_STRING).to_owned()),
                user_agent: text(span, "user_agent.original").map(|agent| first_chars(agent, MAX_STRING)),
                client_ip: client.map(|ip| first_chars(ip, MAX_STRING)),
                x_forwarded_for: client.is_some() && client != peer,
            },
            response: HttpResponse {
                status: int(span, "http.response.status_code"),
                content_length: int(span, "http.response.body.size"),
            },
        })
    }
}

/// The address without its query, which may hold secrets.
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

#[derive(serde::Serialize)]
struct Aws<'a> {
    xray: XRay<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloudwatch_logs: Option<[LogGroup<'a>; 1]>,
}

#[derive(serde::Serialize)]
struct XRay<'a> {
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

#[derive(serde::Serialize)]
struct Service {
    version: &'static str,
    runtime: &'static str,
}

/// The attributes of a span that X-Ray indexes, at most `most` (text, numbers, true and false), and those that have no
/// other place. Two keys that differ only in what is not allowed would be one key twice, so the second is not indexed.
fn divide(span: &SpanData, most: usize) -> (Vec<(String, &Value)>, Vec<&Attribute>) {
    let mut annotations: Vec<(String, &Value)> = Vec::new();
    let mut others = Vec::new();
    for attribute in span.attributes.iter().filter(|attribute| !is_in_http_block(attribute)) {
        let key = annotation_key(&attribute.key);
        let is_taken = annotations.iter().any(|(taken, _)| *taken == key);
        if annotations.len() < most && can_be_annotation(attribute) && !is_taken {
            annotations.push((key, &attribute.value));
        } else {
            others.push(attribute);
        }
    }
    (annotations, others)
}

fn can_be_annotation(attribute: &Attribute) -> bool {
    match &attribute.value {
        Value::String(_) | Value::Bool(_) | Value::Int(_) => true,
        Value::Double(number) => number.is_finite(),
        Value::Map(_) => false,
    }
}

fn is_in_http_block(attribute: &Attribute) -> bool {
    IN_HTTP_BLOCK.contains(&attribute.key.as_ref())
}

/// `{"app_result_length":3}`: keys are letters, digits and `_`.
struct Annotations<'a>(&'a [(String, &'a Value)]);

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

fn annotation_key(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let key: String = key.chars().take(MAX_ANNOTATION_KEY).map(allowed).collect();
    if key.is_empty() { "_".to_owned() } else { key }
}

/// `{"namespace":{"key":{"now":"...","result-size":1}}}`, and under `attributes` what cannot be an annotation.
struct MetadataJson<'a> {
    metadata: &'a [Metadata],
    others: &'a [&'a Attribute],
}

impl MetadataJson<'_> {
    fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.others.is_empty()
    }
}

impl Serialize for MetadataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        let mut written: Vec<&str> = Vec::new();
        for Metadata { namespace, .. } in self.metadata {
            if !written.contains(namespace) {
                written.push(namespace);
                object.serialize_entry(namespace, &Namespace(self.metadata, namespace))?;
            }
        }
        if !self.others.is_empty() {
            let name = if written.contains(&"attributes") { "other attributes" } else { "attributes" };
            object.serialize_entry(name, &Others(self.others))?;
        }
        object.end()
    }
}

struct Namespace<'a>(&'a [Metadata], &'a str);

impl Serialize for Namespace<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_namespace = self.0.iter().filter(|metadata| metadata.namespace == self.1);
        serializer.collect_map(of_namespace.map(|metadata| (metadata.key, Plain(&metadata.value))))
    }
}

struct Others<'a>(&'a [&'a Attribute]);

impl Serialize for Others<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|attribute| (attribute.key.as_ref(), Plain(&attribute.value))))
    }
}

/// An outgoing call is named after the host it goes to, everything else after its span.
fn subsegment_name(span: &SpanData) -> String {
    let name = match (span.kind, text(span, "server.address")) {
        (SpanKind::Client, Some(host)) => host,
        _ => &span.name,
    };
    let name = sanitised_name(name);
    if name.is_empty() { "unnamed".to_owned() } else { name }
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

fn fits(datagram: &[u8]) -> bool {
    datagram.len() <= HEADER.len() + MAX_DOCUMENT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

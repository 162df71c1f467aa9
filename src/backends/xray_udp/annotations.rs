//! Annotations of an X-Ray document: selects the attributes that X-Ray indexes, and makes their
//! keys valid.

use crate::trace::Value;
use crate::trace::span::{Attribute, SpanData};

/// Attributes outside the http block, divided into those that X-Ray indexes and the others.
pub(super) struct Indexed<'a> {
    /// Indexed attributes, with the keys that X-Ray accepts.
    pub(super) annotations: Vec<(String, &'a Value)>,
    /// Attributes that are sent as metadata.
    pub(super) others: Vec<&'a Attribute>,
}

impl<'a> Indexed<'a> {
    /// Divides the attributes of a span. Text, numbers and booleans are indexed, at most `most` of
    /// them. Two keys that differ only in forbidden characters would become equal, so the second is
    /// not indexed.
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

/// Replaces the characters that X-Ray forbids in a key: `app.result_length` becomes
/// `app_result_length`.
fn annotation_key(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let key: String = key.chars().take(MAX_ANNOTATION_KEY).map(allowed).collect();
    if key.is_empty() { "_".to_owned() } else { key }
}

/// Attributes that the http block replaces. `url.query` is not sent at all, because it may contain
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

const MAX_ANNOTATION_KEY: usize = 500;

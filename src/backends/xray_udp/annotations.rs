//! Which attributes of a span X-Ray indexes as annotations, and with which keys.

use crate::text::json::Json;
use crate::trace::Value;
use crate::trace::span::{Attribute, SpanData};

/// Place of an attribute in an X-Ray document, outside the http block.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Place {
    Annotation,
    Metadata,
}

/// Places of the attributes of a span that are not in the http block, in their order. The first
/// `most` attributes that can be indexed are annotations.
///
/// Two keys that differ only in forbidden characters would become one, so the second is not
/// indexed.
pub(super) fn places(span: &SpanData, most: usize) -> impl Iterator<Item = (&Attribute, Place)> + Clone {
    let attributes = &span.attributes;
    // Lengths of the earlier keys, a bit each. Two ASCII keys of different lengths cannot become
    // the same key, so they need not be compared.
    let mut lengths = 0_u64;
    let others = attributes.iter().enumerate().filter(|(_, attribute)| !is_in_http_block(&attribute.key));
    others.scan(most, move |left, (index, attribute)| {
        let key = attribute.key.as_ref();
        let length =
            if (2..=MAX_KEY).contains(&key.len()) && key.is_ascii() { 1 << (key.len() % 64) } else { u64::MAX };
        let may_collide = lengths & length != 0;
        lengths |= length;
        let is_free = || !may_collide || !attributes[..index].iter().any(|earlier| would_collide(earlier, attribute));
        let place = if *left > 0 && can_be_annotation(&attribute.value) && is_free() {
            *left -= 1;
            Place::Annotation
        } else {
            Place::Metadata
        };
        Some((attribute, place))
    })
}

/// Returns true if an earlier attribute takes the key of this annotation.
fn would_collide(earlier: &Attribute, attribute: &Attribute) -> bool {
    let (a, b) = (earlier.key.as_ref(), attribute.key.as_ref());
    // Each character has one replacement. Keys of different lengths can become the same only if the
    // longer one has characters of several bytes or is cut, or if one is empty.
    let longer = if a.len() > b.len() { a } else { b };
    let may_be_same = a.len() == b.len() || !longer.is_ascii() || !(2..=MAX_KEY).contains(&longer.len());
    may_be_same
        && !is_in_http_block(a)
        && can_be_annotation(&earlier.value)
        && allowed_characters(a).eq(allowed_characters(b))
}

fn can_be_annotation(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) | Value::Int(_) => true,
        Value::Double(number) => number.is_finite(),
        Value::Map(_) => false,
    }
}

/// Writes the key of an annotation: `"app_result_length"` for `app.result_length`.
pub(super) fn write_key(json: &mut Json, key: &str) {
    if key.len() > MAX_KEY || key.is_empty() || !key.is_ascii() {
        let replaced: String = allowed_characters(key).collect();
        json.quoted(replaced);
        return;
    }
    json.raw("\"").replaced(key.as_bytes(), |byte| ALLOWED_CHARACTERS[usize::from(byte)]).raw("\"");
}

/// At the place of each ASCII character: itself, or `_` if X-Ray forbids it.
const ALLOWED_CHARACTERS: [u8; 256] = {
    let mut table = [b'_'; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = byte as u8;
        }
        byte += 1;
    }
    table
};

/// Characters of a key, with `_` for each one that X-Ray forbids. An empty key is `_`, too.
fn allowed_characters(key: &str) -> impl Iterator<Item = char> {
    let key = if key.is_empty() { "_" } else { key };
    key.chars().take(MAX_KEY).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
}

/// Limit of a key, in characters.
const MAX_KEY: usize = 500;

/// Returns true for an attribute that the http block replaces. `url.query` is not sent at all,
/// because it may contain secrets.
fn is_in_http_block(key: &str) -> bool {
    matches!(
        key,
        "http.request.method"
            | "http.response.status_code"
            | "http.response.body.size"
            | "url.full"
            | "url.path"
            | "url.query"
            | "url.scheme"
            | "server.address"
            | "server.port"
            | "client.address"
            | "network.peer.address"
            | "network.peer.port"
            | "user_agent.original"
            | "error.type"
    )
}

//! Sequence tokens. Until 2023, each PutLogEvents had to repeat a token from the response before
//! it. AWS ignores the token since then, but older stand-ins for the service still demand it. They
//! answer with the token that they expect:
//!
//! ```text
//! {"__type":"InvalidSequenceTokenException","expectedSequenceToken":"4957...","message":"..."}
//! ```
//!
//! The call is then sent once more with this token. No token is kept, so a batch takes two calls to
//! such a stand-in, and one to AWS.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value as Json;

/// Largest body that is decompressed. The service accepts 1 MiB.
const MAX_BODY: u64 = 4 << 20;

/// Returns the token that a response expects. Some stand-ins name it only in the message.
pub(super) fn expected(response: &Json, message: &str) -> Option<String> {
    let field = response.get("expectedSequenceToken").and_then(Json::as_str);
    let in_message = message.split_once("sequenceToken is: ").and_then(|(_, rest)| rest.split_whitespace().next());
    let token = field.or_else(|| in_message.filter(|token| *token != "null"))?;
    let is_token = (1..=256).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| token.to_owned())
}

/// Returns the body of a call with this token, not compressed. Returns `None` if the body is not an
/// object.
pub(super) fn add(body: &[u8], token: &str) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let is_gzip = body.starts_with(&[0x1f, 0x8b]);
    if is_gzip {
        GzDecoder::new(body).take(MAX_BODY).read_to_end(&mut unpacked).ok()?;
    }
    let fields = if is_gzip { &unpacked[..] } else { body }.strip_prefix(b"{")?;
    let token = Json::from(token).to_string();
    Some([b"{\"sequenceToken\":", token.as_bytes(), b",", fields].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_token_is_read_from_the_field_or_from_the_message() {
        let message = "The given sequenceToken is invalid. The next expected sequenceToken is: 49 and no more";
        for (response, message, token) in [
            (json!({ "expectedSequenceToken": "495" }), "", Some("495")),
            (json!({ "expectedSequenceToken": null }), message, Some("49")),
            (json!({}), "The next expected sequenceToken is: null", None),
            (json!({ "expectedSequenceToken": "a b" }), "", None),
            (json!({}), "", None),
        ] {
            assert_eq!(expected(&response, message).as_deref(), token, "{response} {message}");
        }
    }

    #[test]
    fn the_token_becomes_the_first_field() {
        assert_eq!(add(br#"{"a":1}"#, "4\"9").as_deref(), Some(&br#"{"sequenceToken":"4\"9","a":1}"#[..]));
        assert_eq!(add(b"[]", "49"), None);
    }
}

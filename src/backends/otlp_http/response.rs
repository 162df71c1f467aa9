//! Body of a response with a status of 2xx. A receiver of OTLP answers with an
//! `ExportTraceServiceResponse`:
//!
//! ```text
//! (empty)   {}   {"partialSuccess":{}}                         all spans accepted
//! {"partialSuccess":{"rejectedSpans":"2","errorMessage":"x"}}  two rejected
//! {"partial_success":{"rejected_spans":2}}                     the same, by the original names
//! <html>   {"code":3,"message":"..."}   a compressed body      another program has answered
//! ```
//!
//! Unknown fields are ignored, as protobuf's JSON mapping requires of a client of a newer receiver.

use serde_json::Value as Json;

use crate::delivery::{Outcome, Problem};
use crate::text::encoding::without_mark;
use crate::text::{Message, Url, one_line, reason_phrase};
use crate::wire::http::Reply;
use crate::wire::redact::Redactor;

/// Receiver of OTLP, for messages about its responses.
pub(in crate::backends) struct Receiver<'a> {
    pub(in crate::backends) url: &'a Url,
    /// Redacts secrets in the responses.
    pub(in crate::backends) redactor: &'a Redactor,
}

impl Receiver<'_> {
    /// Returns the outcome of a response with a status of 2xx.
    pub(in crate::backends) fn accepted(&self, reply: &Reply) -> Outcome {
        let (url, status) = (&self.url, reply.status);
        let next = "check host, port and path, and whether a proxy answers instead";
        let unconfirmed =
            |what: String| Outcome::Unconfirmed(Problem::new("not a receiver", Message::new(what).next(next)));
        if let Some(error) = &reply.broken {
            let what =
                format!("HTTP {status} from {url}, but its body broke off: {error}; rejected spans would be in it");
            return Outcome::Warned(Problem::new("broken body", what));
        }
        let (rejected, message) = match ExportResponse::read(reply) {
            ExportResponse::Success => return Outcome::Delivered,
            ExportResponse::Partial(rejected, message) => (rejected, self.readable(&message)),
            ExportResponse::WebPage => {
                return unconfirmed(format!("unexpected web page from {url}, which is not a receiver of telemetry"));
            }
            ExportResponse::Foreign(why) => {
                let said = self.said(without_mark(&reply.body));
                let said = if said.is_empty() { said } else { format!(" ({said})") };
                // A part of it may come from a header of the response.
                let (why, reason) = (self.readable(&why), reason_phrase(status));
                return unconfirmed(format!(
                    "HTTP {status} {reason} from {url}, but not from a receiver of OTLP: {why}{said}"
                ));
            }
        };
        if rejected == 0 {
            let what = format!("warning from {url}, which accepted all spans: {message}");
            return Outcome::Warned(Problem::new("warning", what));
        }
        let why = if message.is_empty() { "no reason given" } else { &message };
        let what = Message::new(format!("partial success: {url} rejected {rejected} spans: {why}"));
        let next = "correct what the receiver names; the rejected spans are lost and counted as refused";
        let problem = Problem::new("partial success", what.next(next));
        Outcome::Partly { rejected: usize::try_from(rejected).unwrap_or(usize::MAX), problem }
    }

    /// Returns the server's message: `message`, `detail`, `error` or `title` of a JSON object, or the
    /// beginning of another text.
    pub(in crate::backends) fn said(&self, body: &[u8]) -> String {
        if let Ok(Json::Object(answer)) = serde_json::from_slice(body) {
            let text = ["message", "detail", "error", "title"].iter().find_map(|key| answer.get(*key)?.as_str());
            return self.readable(text.unwrap_or_default());
        }
        self.readable(&String::from_utf8_lossy(body))
    }

    /// Returns the text as one short line with secrets redacted. Some servers repeat the key that
    /// they refuse.
    pub(in crate::backends) fn readable(&self, text: &str) -> String {
        one_line(&self.redactor.redact(text.trim().to_owned()))
    }
}

/// Meaning of a response.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum ExportResponse {
    /// All spans were accepted.
    Success,
    /// Number of rejected spans, and the message of the receiver. One of the two may be zero or
    /// empty.
    Partial(u64, String),
    /// A web page: a wrong address, or the log-in page of a network.
    WebPage,
    /// The response does not come from a receiver of OTLP, for this reason.
    Foreign(String),
}

impl ExportResponse {
    /// Reads the response.
    pub(super) fn read(reply: &Reply) -> Self {
        let body = without_mark(&reply.body).trim_ascii();
        if body.is_empty() {
            return Self::Success;
        }
        let encoding = reply.header("content-encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        if let Some(encoding) = encoding {
            return Self::Foreign(format!("its body has Content-Encoding: {encoding}, which was not asked for"));
        }
        if reply
            .header("content-type")
            .is_some_and(|content_type| content_type.to_ascii_lowercase().contains("protobuf"))
        {
            let partial = protobuf::response(&reply.body);
            return partial.map_or_else(|| Self::Foreign("its body is not protobuf".to_owned()), Self::partial);
        }
        let begins_with = |tag: &[u8]| body.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        if begins_with(b"<!doctype html") || begins_with(b"<html") {
            return Self::WebPage;
        }
        match serde_json::from_slice(body) {
            Ok(Json::Object(fields)) => Self::of_fields(&fields),
            Ok(_) => Self::Foreign("its body is not a JSON object".to_owned()),
            Err(_) => Self::Foreign("its body is not JSON".to_owned()),
        }
    }

    fn of_fields(fields: &Fields) -> Self {
        if is_error(fields) {
            return Self::Foreign("its body is an error".to_owned());
        }
        let empty = Fields::new();
        let partial = match field(fields, "partialSuccess", "partial_success") {
            None | Some(Json::Null) => &empty,
            Some(Json::Object(partial)) => partial,
            Some(_) => return Self::Foreign("its partialSuccess is not an object".to_owned()),
        };
        let rejected = match field(partial, "rejectedSpans", "rejected_spans") {
            None | Some(Json::Null) => Some(0),
            Some(number) => whole(number),
        };
        let message = match field(partial, "errorMessage", "error_message") {
            None | Some(Json::Null) => Some(""),
            Some(message) => message.as_str(),
        };
        match (rejected, message) {
            (Some(rejected), Some(message)) => Self::partial((rejected, message.trim().to_owned())),
            _ => Self::Foreign("its partialSuccess cannot be read".to_owned()),
        }
    }

    fn partial((rejected, message): (u64, String)) -> Self {
        if rejected == 0 && message.is_empty() { Self::Success } else { Self::Partial(rejected, message) }
    }
}

type Fields = serde_json::Map<String, Json>;

/// Returns a field by the name of JSON, or by its original name.
fn field<'f>(fields: &'f Fields, json: &str, original: &str) -> Option<&'f Json> {
    fields.get(json).or_else(|| fields.get(original))
}

/// Returns a number that is written as a number or as text. A negative one counts as zero.
fn whole(number: &Json) -> Option<u64> {
    let number = match number {
        Json::String(text) => text.trim().parse::<f64>().ok()?,
        number => number.as_f64()?,
    };
    number.is_finite().then(|| number.max(0.0) as u64)
}

/// Returns true for an error: a `google.rpc.Status` (`{"code":3,"message":"..."}`), or an object
/// whose `error` or `errors` says something.
fn is_error(fields: &Fields) -> bool {
    let has_code = fields.get("code").and_then(whole).is_some_and(|code| code != 0);
    let says = |name: &str| match fields.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => false,
        Some(Json::String(text)) => !text.trim().is_empty(),
        Some(Json::Array(errors)) => !errors.is_empty(),
        Some(Json::Object(error)) => !error.is_empty(),
        Some(Json::Bool(true) | Json::Number(_)) => true,
    };
    has_code || says("error") || says("errors")
}

/// The same response in protobuf, which some receivers send whatever the request was.
mod protobuf {
    /// Returns the number of rejected spans and the message.
    pub(super) fn response(mut bytes: &[u8]) -> Option<(u64, String)> {
        let mut found = (0, String::new());
        while !bytes.is_empty() {
            if let (1, Value::Bytes(mut partial)) = field(&mut bytes)? {
                while !partial.is_empty() {
                    match field(&mut partial)? {
                        // A negative number is a very large one here. It counts as zero.
                        (1, Value::Number(rejected)) => found.0 = if rejected > i64::MAX as u64 { 0 } else { rejected },
                        (2, Value::Bytes(message)) => found.1 = String::from_utf8_lossy(message).trim().to_owned(),
                        _ => {}
                    }
                }
            }
        }
        Some(found)
    }

    enum Value<'b> {
        Number(u64),
        Bytes(&'b [u8]),
    }

    /// Takes the next field: its number, and its value.
    fn field<'b>(bytes: &mut &'b [u8]) -> Option<(u64, Value<'b>)> {
        let key = varint(bytes)?;
        let length = match key & 7 {
            0 => return Some((key >> 3, Value::Number(varint(bytes)?))),
            1 => 8,
            2 => usize::try_from(varint(bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some((key >> 3, Value::Bytes(value)))
    }

    /// Takes a number in groups of seven bits, the lowest first.
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

//! Cause of a failure in an X-Ray document: the exceptions of a span.

use super::encode::{MAX_ANNOTATION_VALUE, MAX_STRING};
use crate::text::first_chars;
use crate::text::json::Json;
use crate::trace::Value;
use crate::trace::span::{Event, SpanData, SpanKind};

/// ```text
/// {"exceptions":[{"id":"0f910026178b71eb","type":"KeyError","message":"missing field",
///   "remote":false,"stack":[{"path":"src/x.rs","line":42,"label":"create_activity"}]}]}
/// ```
///
/// A shortened cause contains only the first exception, with the beginning of its message.
pub(super) fn cause(json: &mut Json, span: &SpanData, is_shortened: bool) {
    let (most, max_message) = if is_shortened { (1, MAX_STRING) } else { (MAX_EXCEPTIONS, MAX_ANNOTATION_VALUE) };
    let exceptions = span.rare().events.iter().filter(|event| is_exception(event)).take(most);
    // Exceptions of this span, at most eight.
    json.raw(r#"{"exceptions":["#);
    json.separated(exceptions.enumerate(), |json, (number, event)| {
        let [kind, message, stacktrace] =
            ["exception.type", "exception.message", "exception.stacktrace"].map(|key| event_text(event, key));
        // An id made from that of the span. The segment names it as its cause.
        json.raw(r#"{"id":"#).quoted(exception_id(span, number));
        // exception.type
        json.raw(r#","type":"#).string(first_chars(kind, MAX_STRING));
        // exception.message
        json.raw(r#","message":"#).string(first_chars(message, max_message));
        // True if the failure came from another service.
        json.raw(r#","remote":"#).bool(span.kind == SpanKind::Client);
        if let Some((path, line)) = place(stacktrace) {
            // The place in the source, from exception.stacktrace. X-Ray wants a list of calls.
            json.raw(r#","stack":[{"path":"#).string(first_chars(path, MAX_STRING));
            json.raw(r#","line":"#).unsigned(line.into());
            // The span, because the function is not known.
            json.raw(r#","label":"#).string(first_chars(&span.name, MAX_STRING)).raw("}]");
        }
        json.raw("}");
    });
    json.raw("]}");
}

const MAX_EXCEPTIONS: usize = 8;

/// Returns true if the span has an exception.
pub(super) fn has_exception(span: &SpanData) -> bool {
    span.rare().events.iter().any(is_exception)
}

/// Derives the id of an exception from the id of its span, so that the segment can name it without
/// a look-up.
pub(super) fn exception_id(span: &SpanData, number: usize) -> String {
    let span_id = u64::from_str_radix(span.id.hex().as_str(), 16).unwrap_or(0);
    format!("{:016x}", span_id ^ (0xe << 60) ^ (number as u64 + 1))
}

fn is_exception(event: &Event) -> bool {
    event.name == "exception"
}

/// Parses path and line of `at src/http/routes.rs:149:21`.
fn place(stacktrace: &str) -> Option<(&str, u32)> {
    let mut parts = stacktrace.strip_prefix("at ")?.rsplitn(3, ':');
    let (_column, line, path) = (parts.next()?, parts.next()?, parts.next()?);
    Some((path, line.parse().ok()?))
}

fn event_text<'a>(event: &'a Event, key: &str) -> &'a str {
    let found = event.attributes.iter().find(|attribute| attribute.key == key);
    match found.map(|attribute| &attribute.value) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

//! Cause of a failure in an X-Ray document: the exceptions, or the id of one in a subsegment.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::encode::{MAX_ANNOTATION_VALUE, MAX_STRING};
use crate::text::first_chars;
use crate::trace::Value;
use crate::trace::span::{Event, SpanData, SpanKind};

/// `{"exceptions":[{...}]}`, or the id of an exception elsewhere in the trace:
/// `"0f910026178b71eb"`.
pub(super) enum Cause<'a> {
    Here { exceptions: Vec<ExceptionJson<'a>> },
    There(String),
}

impl Cause<'_> {
    /// Cuts it to the beginning of the first exception.
    pub(super) fn shortened(mut self) -> Self {
        if let Self::Here { exceptions } = &mut self {
            exceptions.truncate(1);
            exceptions[0].message = first_chars(exceptions[0].message, MAX_STRING);
        }
        self
    }
}

impl Serialize for Cause<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Here { exceptions } => {
                let mut object = serializer.serialize_map(Some(1))?;
                object.serialize_entry("exceptions", exceptions)?;
                object.end()
            }
            Self::There(id) => serializer.serialize_str(id),
        }
    }
}

/// ```text
/// {"id":"0f910026178b71eb","type":"KeyError","message":"missing field","remote":false,
///  "stack":[{"path":"src/x.rs","line":42,"label":"create_activity"}]}
/// ```
#[derive(serde::Serialize)]
pub(super) struct ExceptionJson<'a> {
    id: String,
    r#type: &'a str,
    message: &'a str,
    remote: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<[StackFrame<'a>; 1]>,
}

#[derive(serde::Serialize)]
struct StackFrame<'a> {
    path: &'a str,
    line: u32,
    label: &'a str,
}

/// Returns true if the span has an exception.
pub(super) fn has_exception(span: &SpanData) -> bool {
    span.events.iter().any(|event| event.name == "exception")
}

/// Maps the exceptions of a span.
pub(super) fn exceptions(span: &SpanData) -> Vec<ExceptionJson<'_>> {
    let events = span.events.iter().filter(|event| event.name == "exception").take(MAX_EXCEPTIONS);
    events
        .enumerate()
        .map(|(number, event)| ExceptionJson {
            id: exception_id(span, number),
            r#type: first_chars(event_text(event, "exception.type"), MAX_STRING),
            message: first_chars(event_text(event, "exception.message"), MAX_ANNOTATION_VALUE),
            remote: span.kind == SpanKind::Client,
            stack: frame(event_text(event, "exception.stacktrace"), &span.name).map(|frame| [frame]),
        })
        .collect()
}

const MAX_EXCEPTIONS: usize = 8;

/// Derives the id of an exception from the id of its span, so that the segment can name it without
/// a look-up.
pub(super) fn exception_id(span: &SpanData, number: usize) -> String {
    let span_id = u64::from_str_radix(span.id.hex().as_str(), 16).unwrap_or(0);
    format!("{:016x}", span_id ^ (0xe << 60) ^ (number as u64 + 1))
}

/// Parses `at src/http/routes.rs:149:21`.
fn frame<'a>(stacktrace: &'a str, label: &'a str) -> Option<StackFrame<'a>> {
    let mut parts = stacktrace.strip_prefix("at ")?.rsplitn(3, ':');
    let (_column, line, path) = (parts.next()?, parts.next()?, parts.next()?);
    Some(StackFrame {
        path: first_chars(path, MAX_STRING),
        line: line.parse().ok()?,
        label: first_chars(label, MAX_STRING),
    })
}

fn event_text<'a>(event: &'a Event, key: &str) -> &'a str {
    let found = event.attributes.iter().find(|attribute| attribute.key == key);
    match found.map(|attribute| &attribute.value) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

//! Reads OTLP/JSON trace bodies with the types of the `opentelemetry-proto` crate, which is code of
//! another project.
//!
//! ```text
//! otlp_proto BODY.json...
//! ```
//!
//! The decoder refuses names of enums, ids that are not hex, and numbers that do not fit. It
//! ignores unknown keys, so a misspelt list decodes as an empty one. This program therefore refuses
//! a body without spans. It also refuses bodies that decode but contain what the comments in the
//! `.proto` files forbid.
//!
//! Prints one line per file. The exit status is 1 if any file is refused.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

fn main() -> ExitCode {
    let paths: Vec<_> = env::args_os().skip(1).collect();
    if paths.is_empty() {
        eprintln!("otlp_proto BODY.json...");
        return ExitCode::from(2);
    }
    let mut status = ExitCode::SUCCESS;
    for path in paths.iter().map(Path::new) {
        match spans_in(path) {
            Ok(count) => println!("{}: {count} spans", path.display()),
            Err(problem) => {
                eprintln!("{}: {problem}", path.display());
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// Number of spans in the file, or the first problem in it.
fn spans_in(path: &Path) -> Result<usize, String> {
    let body = fs::read(path).map_err(|error| error.to_string())?;
    let request: ExportTraceServiceRequest =
        serde_json::from_slice(&body).map_err(|error| format!("does not decode: {error}"))?;
    let mut count = 0;
    for resource_spans in &request.resource_spans {
        if let Some(resource) = &resource_spans.resource {
            keys_once(&resource.attributes).map_err(|problem| format!("resource: {problem}"))?;
        }
        for scope_spans in &resource_spans.scope_spans {
            if let Some(scope) = &scope_spans.scope {
                keys_once(&scope.attributes).map_err(|problem| format!("scope {:?}: {problem}", scope.name))?;
            }
            for span in &scope_spans.spans {
                check_span(span).map_err(|problem| format!("span {:?}: {problem}", span.name))?;
                count += 1;
            }
        }
    }
    if count == 0 { Err("no spans".to_owned()) } else { Ok(count) }
}

fn check_span(span: &Span) -> Result<(), String> {
    check_id::<16>("traceId", &span.trace_id)?;
    check_id::<8>("spanId", &span.span_id)?;
    // Only a root span has no parent.
    if !span.parent_span_id.is_empty() {
        check_id::<8>("parentSpanId", &span.parent_span_id)?;
    }
    if !SpanKind::try_from(span.kind).is_ok_and(|kind| kind != SpanKind::Unspecified) {
        return Err(format!("kind {}", span.kind));
    }
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    if end < start {
        return Err(format!("ends {} ns before it starts", start - end));
    }
    keys_once(&span.attributes)?;
    for event in &span.events {
        keys_once(&event.attributes).map_err(|problem| format!("event {:?}: {problem}", event.name))?;
    }
    for link in &span.links {
        check_id::<16>("traceId of a link", &link.trace_id)?;
        check_id::<8>("spanId of a link", &link.span_id)?;
        keys_once(&link.attributes).map_err(|problem| format!("link: {problem}"))?;
    }
    Ok(())
}

fn check_id<const LENGTH: usize>(field: &str, id: &[u8]) -> Result<(), String> {
    match id.len() {
        0 => Err(format!("{field} is empty")),
        _ if id.iter().all(|byte| *byte == 0) => Err(format!("{field} is zero")),
        length if length != LENGTH => Err(format!("{field} has {length} bytes, not {LENGTH}")),
        _ => Ok(()),
    }
}

/// Checks that no key occurs twice in a list, or in a map that is a value in it.
fn keys_once(attributes: &[KeyValue]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for KeyValue { key, value, .. } in attributes {
        if !seen.insert(key) {
            return Err(format!("attribute {key:?} comes twice"));
        }
        keys_once_inside(value.as_ref()).map_err(|problem| format!("in {key:?}: {problem}"))?;
    }
    Ok(())
}

fn keys_once_inside(value: Option<&AnyValue>) -> Result<(), String> {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::KvlistValue(map)) => keys_once(&map.values),
        Some(Value::ArrayValue(array)) => array.values.iter().try_for_each(|value| keys_once_inside(Some(value))),
        _ => Ok(()),
    }
}

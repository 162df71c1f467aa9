//! `cruddur explain cloudwatch`: prints the call for a sample log line, with a note on every field,
//! and the four steps of its signature.

use std::sync::Arc;

use log::Level;

use super::encode::{LineFormat, LogEvents};
use super::{PUT_LOG_EVENTS, headers};
use crate::delivery::Encoder;
use crate::logging::LogLine;
use crate::text::explanation::Section;
use crate::text::pretty::{AnnotatedJson, FieldNotes};
use crate::trace::current::Current;
use crate::trace::sample;
use crate::wire::aws_call::SignedExample;
use crate::wire::aws_credentials::CLOUDWATCH_LOGS;

pub(super) fn explain() -> Vec<Section> {
    let body = body();
    let json = |root, json| {
        let notes = FieldNotes::of_encoder(include_str!("encode.rs"));
        AnnotatedJson { root, json, notes, elided: &[] }
    };
    let mut sections = vec![
        Section::json(
            "line",
            "PutLogEvents: one signed POST for a batch of log lines. This batch is the access line of the request. The line:",
            json("line", message(&body)),
        ),
        Section::json("body", "The body, spread out. The line is a string in it:", json("request", body.clone())),
    ];
    sections.extend(SignedExample::new(CLOUDWATCH_LOGS, "/", headers(PUT_LOG_EVENTS, None), body).sections());
    sections
}

/// Returns the body for the line that the server logs about the sample request.
fn body() -> String {
    let trace = sample::request();
    let root = &trace.spans[0];
    let line = LogLine {
        time: root.end / 1_000_000,
        level: Level::Info,
        target: "access".to_owned(),
        message: "[2023-Feb-20 02:30] 127.0.0.1 GET http /api/activities/home 200 OK".to_owned(),
        key_values: vec![],
        span: Some(Current { trace_id: trace.trace_id, span_id: root.id, flags: trace.flags }),
    };
    let (group, stream) = ("cruddur".to_owned(), "backend-flask".to_owned());
    let payloads = LogEvents { group, stream, format: LineFormat::Json }.encode(&[Arc::new(line)], 0);
    payloads.into_iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect()
}

/// Returns the first message of a body, as the service stores it.
fn message(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["logEvents"][0]["message"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::explanation::Body;

    #[test]
    fn every_field_has_a_note() {
        for section in explain() {
            if let Body::Json(json) = section.body {
                assert_eq!(json.without_note(), [""; 0]);
            }
        }
    }
}

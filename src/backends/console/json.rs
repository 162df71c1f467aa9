//! Format `json` of the console: each span is one line of JSON, with the fields of Python's
//! ConsoleSpanExporter.

use crate::plain_json::Fields;
use crate::text::time;
use crate::trace::FinishedTrace;
use crate::trace::span::{Attribute, SpanData, SpanKind, Status};

/// Writes one line per span, in the order in which the spans ended.
pub(super) fn write(out: &mut Vec<u8>, trace: &FinishedTrace, resource: &[Attribute]) {
    let mut spans: Vec<_> = trace.spans.iter().enumerate().collect();
    // At equal times the child comes first: a parent ends after it.
    spans.sort_by_key(|(index, span)| (span.end, std::cmp::Reverse(*index)));
    for (index, span) in spans {
        let state = if index == 0 { python_state(&trace.trace_state) } else { "[]".to_owned() };
        let line = SpanLine {
            name: &span.name,
            context: ContextJson {
                trace_id: format!("0x{}", trace.trace_id),
                span_id: format!("0x{}", span.id),
                trace_state: &state,
            },
            kind: match span.kind {
                SpanKind::Internal => "SpanKind.INTERNAL",
                SpanKind::Server => "SpanKind.SERVER",
                SpanKind::Client => "SpanKind.CLIENT",
            },
            parent_id: span.parent.map(|parent| format!("0x{parent}")),
            start_time: time::micros(span.start).to_string(),
            end_time: time::micros(span.end).to_string(),
            status: status(span),
            attributes: Fields(&span.attributes, &span.rare().metadata),
            events: span
                .rare()
                .events
                .iter()
                .map(|event| ConsoleEvent {
                    name: &event.name,
                    timestamp: time::micros(event.time).to_string(),
                    attributes: Fields(&event.attributes, &[]),
                })
                .collect(),
            links: [],
            resource: ResourceJson { attributes: Fields(resource, &[]), schema_url: "" },
        };
        serde_json::to_writer(&mut *out, &line)
            .expect("writing to memory cannot fail, and no Serialize below returns an error of its own");
        out.push(b'\n');
    }
}

#[derive(serde::Serialize)]
struct SpanLine<'a> {
    name: &'a str,
    context: ContextJson<'a>,
    kind: &'a str,
    parent_id: Option<String>,
    start_time: String,
    end_time: String,
    status: ConsoleStatus<'a>,
    attributes: Fields<'a>,
    events: Vec<ConsoleEvent<'a>>,
    links: [(); 0],
    resource: ResourceJson<'a>,
}

#[derive(serde::Serialize)]
struct ContextJson<'a> {
    trace_id: String,
    span_id: String,
    trace_state: &'a str,
}

#[derive(serde::Serialize)]
struct ConsoleStatus<'a> {
    status_code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct ConsoleEvent<'a> {
    name: &'a str,
    timestamp: String,
    attributes: Fields<'a>,
}

#[derive(serde::Serialize)]
struct ResourceJson<'a> {
    attributes: Fields<'a>,
    schema_url: &'a str,
}

fn status(span: &SpanData) -> ConsoleStatus<'_> {
    match &span.rare().status {
        Status::Unset => ConsoleStatus { status_code: "UNSET", description: None },
        Status::Error(message) => {
            ConsoleStatus { status_code: "ERROR", description: Some(message.as_str()).filter(|text| !text.is_empty()) }
        }
    }
}

/// Formats the trace state as Python prints a `TraceState`: `[{key=congo, value=t61}]`.
fn python_state(state: &str) -> String {
    let members = state.split(',').filter_map(|member| member.split_once('='));
    let members: Vec<_> = members.map(|(key, value)| format!("{{key={key}, value={value}}}")).collect();
    format!("[{}]", members.join(", "))
}

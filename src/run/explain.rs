//! `cruddur explain`: the way of a sample request to the bytes that are sent, with a note on each
//! field.
//!
//! The text is made by the encoders, the signer and the propagator that the server uses. Only ids,
//! times and keys are made up. Each backend has its own part, see [`crate::backends::Plugin`].

use std::fmt::Write as _;

use super::Exit;
use crate::backends::BACKENDS;
use crate::plain_json::Plain;
use crate::text::pretty::two_columns;
use crate::trace::context::{Propagator, TraceHeaders, extract, traceparent};
use crate::trace::sample;
use crate::trace::span::{SpanData, SpanKind};

/// The text for one backend, or for all backends that have an `explain`.
///
/// # Errors
///
/// There is no such backend (status 2).
pub fn explain(backend: Option<&str>) -> Result<String, Exit> {
    let mut explained = BACKENDS.iter().filter_map(|plugin| Some((plugin.name, plugin.explain?))).collect::<Vec<_>>();
    if let Some(backend) = backend {
        let names = explained.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        explained.retain(|(name, _)| *name == backend);
        if explained.is_empty() {
            return Err(Exit::wrong(format!("nothing to explain about {backend:?}, only about {names}")));
        }
    }
    let mut text = String::from("A sample request, with made-up ids, times and keys. Nothing is sent.\n");
    heading(&mut text, "the request");
    text.push_str(&request());
    heading(&mut text, "its spans");
    text.push_str(&spans());
    for (name, explain) in explained {
        heading(&mut text, name);
        text.push_str(&explain());
    }
    Ok(text)
}

fn heading(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n== {title} {}\n", "=".repeat(90 - title.len()));
}

/// The request of the caller, and the trace context that is read from it.
fn request() -> String {
    let trace = sample::request();
    let caller = trace.spans[0].parent.expect("the sample has a caller");
    let header = traceparent(trace.trace_id, caller, trace.flags);
    let headers = TraceHeaders { traceparent: vec![&header], ..TraceHeaders::default() };
    let parent = extract(&[Propagator::TraceContext], &headers).expect("what this program writes, it reads");
    let header = format!("traceparent: {header}");
    let (trace_id, xray) = (parent.trace_id.to_string(), parent.trace_id.xray());
    let sampled = if parent.sampled == Some(true) { "yes" } else { "no" };
    let ours = traceparent(trace.trace_id, trace.spans[0].id, trace.flags);
    let caller = caller.to_string();
    let mut text = two_columns([
        ("GET /api/activities/home HTTP/1.1", ""),
        ("Host: localhost:4567", ""),
        (&header, "version, trace id, the caller's span, flags"),
        ("", ""),
    ]);
    text.push_str(&two_columns([
        (format!("trace id   {trace_id}").as_str(), "the caller's, so both are one trace"),
        (&format!("           {xray}"), "as X-Ray spells it: the first 8 digits are a time"),
        (&format!("parent     {caller}"), "the caller's span, in another process"),
        (&format!("sampled    {sampled}"), "the caller decided, flag 1; flag 2: the id is random"),
        (&format!("sent on    {ours}"), "in the answer, and to whom we call: our span is the parent"),
    ]));
    text
}

/// All spans of the sample request.
fn spans() -> String {
    let trace = sample::request();
    let mut text = String::new();
    for (index, span) in trace.spans.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&one_span(span));
    }
    text
}

/// One span: its fields with remarks, then its attributes.
fn one_span(span: &SpanData) -> String {
    let is_server = span.kind == SpanKind::Server;
    let remark = |server: &'static str, inner: &'static str| if is_server { server } else { inner };
    let kind = match span.kind {
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Internal => "INTERNAL",
    };
    let parent = span.parent.map_or_else(String::new, |parent| parent.to_string());
    let micros = |nanos: u64| format!("{}.{:06}", nanos / 1_000_000_000, nanos / 1000 % 1_000_000);
    let mut text = two_columns([
        (
            format!("name       {}", span.name).as_str(),
            remark("method and route, never the path: few different names", "what was done"),
        ),
        (&format!("span id    {}", span.id), "64 random bits"),
        (&format!("parent     {parent}"), remark("the caller", "the span above")),
        (&format!("kind       {kind}"), remark("the side of a call that answers", "neither side of a call")),
        (&format!("scope      {}", span.scope.name), "which part of the program wrote it"),
        (&format!("start      {}", micros(span.start)), "by the wall clock, seconds since 1970"),
        (&format!("end        {}", micros(span.end)), "the start, and what the monotonic clock counted since"),
    ]);
    for attribute in &span.attributes {
        let value = serde_json::to_string(&Plain(&attribute.value)).unwrap_or_default();
        let _ = writeln!(text, "attribute  {} = {value}", attribute.key);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_that_explains_itself_is_found_by_its_name_and_a_wrong_name_lists_them() {
        let all = explain(None).unwrap();
        for name in ["honeycomb", "xray", "cloudwatch"] {
            let one = explain(Some(name)).unwrap();
            let (_, own) = one.split_once(&format!("== {name} ")).unwrap();
            assert!(all.contains(own), "{name}");
            assert_eq!(one.matches("\n== ").count(), 3, "{name}");
        }
        let error = explain(Some("console")).unwrap_err();
        assert_eq!(error.status, 2);
        assert_eq!(
            error.message.to_string(),
            "nothing to explain about \"console\", only about honeycomb, xray, cloudwatch"
        );
    }

    #[test]
    fn the_text_is_the_same_every_time() {
        assert_eq!(explain(None).unwrap(), explain(None).unwrap());
    }
}

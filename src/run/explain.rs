//! `cruddur explain`: the way of a sample request to the bytes that are sent, with a note on each
//! field.
//!
//! The text is made by the encoders, the signer and the propagator that the server uses. Only ids,
//! times and keys are made up. Each backend has its own topic, see [`crate::backends::Plugin`].

use super::Exit;
use crate::backends::BACKENDS;
use crate::plain_json::Plain;
use crate::terminal::Palette;
use crate::text::explanation::{REMARK_COLUMN, Section, two_columns};
use crate::trace::context::{Propagator, TraceHeaders, extract, traceparent};
use crate::trace::sample;
use crate::trace::span::{SpanData, SpanKind};

/// Returns the explanation of everything, of one topic, or one section of a topic. A section is
/// also any field of a document in the topic.
///
/// # Errors
///
/// There is no such topic or section (status 2).
pub fn explain(topic: Option<&str>, section: Option<&str>) -> Result<String, Exit> {
    let mut topics = topics();
    if let Some(wanted) = topic {
        let names = listed(topics.iter().map(|(name, _)| *name));
        topics.retain(|(name, _)| *name == wanted);
        if topics.is_empty() {
            return Err(Exit::wrong(format!("unknown topic {wanted:?}; next: use one of {names}")));
        }
    }
    match (&topics[..], topic, section) {
        ([(topic, sections)], Some(_), Some(wanted)) => {
            let found = sections.iter().find(|section| section.name == wanted).map(Section::print);
            return found.or_else(|| sections.iter().find_map(|section| section.print_field(wanted))).ok_or_else(
                || {
                    let names = listed(sections.iter().map(|section| section.name));
                    Exit::wrong(format!(
                        "unknown section {wanted:?} of {topic}; next: use {names}, or a field of its JSON"
                    ))
                },
            );
        }
        ([(_, sections)], Some(_), None) => return Ok(all(sections)),
        _ => {}
    }
    let mut text = String::from("A sample request, with made-up ids, times and keys. Nothing is sent.\n");
    for (topic, sections) in topics {
        text.push_str(&format!("\n== {topic} {}\n\n{}", "=".repeat(90 - topic.len()), all(&sections)));
    }
    Ok(text)
}

/// Adds the styles of a palette to an explanation: titles as names, notes and remarks dim.
pub fn painted(text: &str, &Palette { name, dim, .. }: &Palette) -> String {
    let line = |line: &str| {
        if line.starts_with("== ") {
            return format!("{name}{line}{name:#}\n");
        }
        let remark = match line.rfind("  ") {
            _ if line.trim_start().starts_with("// ") => line.len() - line.trim_start().len(),
            Some(at) if line[..at].chars().count() >= REMARK_COLUMN && !line[at..].trim().is_empty() => at + 2,
            _ => return format!("{line}\n"),
        };
        let (line, remark) = line.split_at(remark);
        format!("{line}{dim}{remark}{dim:#}\n")
    };
    text.lines().map(line).collect()
}

/// All sections of a topic. A single section needs no title.
fn all(sections: &[Section]) -> String {
    match sections {
        [section] => section.print(),
        _ => sections.iter().map(|it| format!("{}\n\n{}", it.title, it.print())).collect::<Vec<_>>().join("\n"),
    }
}

/// Topics with their sections.
fn topics() -> Vec<(&'static str, Vec<Section>)> {
    let request =
        Section::text("request", "The request of a traced caller, and what is read from its header:", request());
    let spans = Section::text("spans", "The spans of the request:", spans());
    let of_backends = BACKENDS.iter().filter_map(|plugin| Some((plugin.name, plugin.explain?())));
    [("request", vec![request]), ("spans", vec![spans])].into_iter().chain(of_backends).collect()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The request of the caller, and the trace context that is read from it.
fn request() -> String {
    let trace = sample::request();
    let caller = trace.spans[0].parent.expect("the sample has a caller");
    let header = traceparent(trace.trace_id, caller, trace.flags);
    let headers = TraceHeaders { traceparent: vec![header.as_str()], ..TraceHeaders::default() };
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
        (&format!("sent on    {ours}"), "in the answer and in calls to other services; our span is the parent"),
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
            remark("method and route, never the path: few different names", "the work that was done"),
        ),
        (&format!("span id    {}", span.id), "64 random bits"),
        (&format!("parent     {parent}"), remark("the caller's span, in another process", "the span above")),
        (&format!("kind       {kind}"), remark("the side of a call that serves it", "work inside the process")),
        (&format!("scope      {}", span.scope.name), "part of the program that made the span"),
        (&format!("start      {}", micros(span.start)), "wall clock, in seconds since 1970"),
        (&format!("end        {}", micros(span.end)), "the start, plus the time on the monotonic clock"),
    ]);
    for attribute in &span.attributes {
        let value = serde_json::to_string(&Plain(&attribute.value)).unwrap_or_default();
        let note = ATTRIBUTES.iter().find(|(key, _)| attribute.key == *key).map_or("", |(_, note)| note);
        text.push_str(&two_columns([(format!("attribute  {} = {value}", attribute.key).as_str(), note)]));
    }
    text
}

/// Notes on the attributes of the sample request.
const ATTRIBUTES: [(&str, &str); 15] = [
    ("http.request.method", "one of the known methods, else _OTHER"),
    ("url.path", "the path as it came; the query is url.query, with secrets redacted"),
    ("url.scheme", "http, or the scheme in a proxy's header"),
    ("http.route", "the template that the path matches"),
    ("server.address", "from the header Host"),
    ("server.port", "from the header Host, or the default port"),
    ("client.address", "the client; behind a proxy, the address in X-Forwarded-For"),
    ("network.peer.address", "the other end of the connection"),
    ("network.peer.port", "its port"),
    ("network.protocol.version", "version of HTTP"),
    ("user_agent.original", "the header User-Agent"),
    ("http.response.status_code", "from 500 on the span has failed; 4xx is an error of the client"),
    ("http.response.body.size", "in bytes"),
    ("app.now", "set by the application: any fact that helps later"),
    ("app.result_length", "stays a number, so Honeycomb can add it up"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_found_by_its_name_and_a_wrong_name_lists_them() {
        let all = explain(None, None).unwrap();
        for name in ["request", "spans", "honeycomb", "xray", "xray_otlp", "cloudwatch"] {
            let one = explain(Some(name), None).unwrap();
            let (_, own) = all.split_once(&format!("== {name} ")).unwrap();
            assert!(own.split_once("\n\n").unwrap().1.starts_with(&one), "{name}");
        }
        let error = explain(Some("console"), None).unwrap_err();
        assert_eq!(error.status, 2);
        assert_eq!(
            error.message.to_string(),
            "unknown topic \"console\"; next: use one of request, spans, honeycomb, xray, xray_otlp, cloudwatch"
        );
    }

    #[test]
    fn a_section_or_a_field_is_printed_alone() {
        let all = explain(Some("xray"), None).unwrap();
        for section in ["header", "document", "datagram"] {
            assert!(all.contains(&format!(":\n\n{}", explain(Some("xray"), Some(section)).unwrap())), "{section}");
        }
        let field = explain(Some("xray"), Some("annotations")).unwrap();
        assert!(field.starts_with("// ") && field.contains("\n\"annotations\": {\n  \"http_route\": "), "{field}");
        let error = explain(Some("xray"), Some("spans")).unwrap_err();
        assert_eq!(
            error.message.to_string(),
            "unknown section \"spans\" of xray; next: use header, document, datagram, or a field of its JSON"
        );
    }

    #[test]
    fn every_attribute_has_a_note_and_every_note_an_attribute() {
        let spans = sample::request().spans;
        let keys: Vec<_> = spans.iter().flat_map(|span| &span.attributes).map(|it| it.key.as_ref()).collect();
        assert_eq!(keys, ATTRIBUTES.map(|(key, _)| key));
    }

    #[test]
    fn colours_change_no_letter_and_reach_every_remark() {
        let text = explain(None, None).unwrap();
        assert_eq!(painted(&text, &Palette::PLAIN), text);
        let coloured = painted(&text, &Palette::COLOURED);
        let plain =
            ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m"].iter().fold(coloured.clone(), |text, it| text.replace(it, ""));
        assert_eq!(plain, text);
        let dim = |remark: &str| assert!(coloured.contains(&format!("\u{1b}[2m{remark}\u{1b}[0m\n")), "{remark}");
        ATTRIBUTES.iter().for_each(|(_, note)| dim(note));
        let notes = text.lines().map(str::trim_start).filter(|line| line.starts_with("// "));
        assert!(notes.inspect(|note| dim(note)).count() > 20, "{text}");
        assert!(coloured.contains("\n\u{1b}[1m== xray ===="), "{coloured}");
    }

    #[test]
    fn the_text_is_the_same_every_time() {
        assert_eq!(explain(None, None).unwrap(), explain(None, None).unwrap());
    }
}

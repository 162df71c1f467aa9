//! The example that exports one trace with the standard library only. `cargo test` builds it;
//! `cargo test --test it` does not, so build it first: `cargo build --example smallest_otlp`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Collector, Reply, attribute, example};

/// Port 1 needs privileges to listen on, so no program listens there.
const DEAD: &str = "127.0.0.1:1";

fn export_to(receiver: &str) -> Output {
    Command::new(example("smallest_otlp")).arg(receiver).output().expect("the example runs")
}

fn export(reply: Reply) -> (Collector, Output) {
    let collector = Collector::start([reply]);
    let output = export_to(collector.url().trim_start_matches("http://"));
    (collector, output)
}

/// The number in a text field. OTLP writes 64-bit numbers as text.
#[track_caller]
fn number(of: &Value, key: &str) -> u64 {
    let text = of[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {of:#}"));
    text.parse().unwrap_or_else(|_| panic!("{key} is no number: {text}"))
}

#[track_caller]
fn assert_id(id: &Value, digits: usize) {
    let text = id.as_str().unwrap_or_default();
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    assert!(text.len() == digits && is_hex && !text.trim_matches('0').is_empty(), "{id} is no id of {digits} digits");
}

#[test]
fn the_smallest_exporter_sends_one_trace_that_a_collector_accepts() {
    let (collector, output) = export(Reply::ok());
    let stdout = String::from_utf8(output.stdout).expect("it prints text");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{stdout}");
    let requests = collector.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    // It printed the request as it left, and the status line.
    let body = String::from_utf8_lossy(&request.raw_body);
    assert!(stdout.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{stdout}");
    assert!(stdout.ends_with(&format!("\r\n\r\n{body}\n\nHTTP/1.1 200 Scripted\n")), "{stdout}");

    let mut sent = request.json();
    let spans = sent["resourceSpans"][0]["scopeSpans"][0]["spans"].take();
    assert_eq!(
        sent,
        json!({ "resourceSpans": [{
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "smallest" } }] },
            "scopeSpans": [{ "scope": { "name": "smallest_otlp" }, "spans": null }],
        }] })
    );
    let [server, child] = &spans.as_array().expect("a list of spans")[..] else { panic!("not two spans: {spans:#}") };
    assert_id(&server["traceId"], 32);
    assert_id(&server["spanId"], 16);
    assert_id(&child["spanId"], 16);
    assert_ne!(child["spanId"], server["spanId"]);
    assert_eq!((&child["traceId"], &child["parentSpanId"]), (&server["traceId"], &server["spanId"]));
    assert_eq!((server.get("parentSpanId"), &server["kind"], &child["kind"]), (None, &json!(2), &json!(1)));
    assert_eq!((&server["status"], &child["status"]), (&json!({}), &json!({})));
    assert_eq!(attribute(server, "http.response.status_code"), Some(&json!("200")));
    let times = [(server, "start"), (child, "start"), (child, "end"), (server, "end")];
    let times = times.map(|(span, edge)| number(span, &format!("{edge}TimeUnixNano")));
    assert!(times.is_sorted() && times[0] > 1_000_000_000_000_000_000, "{times:?}");

    // The next run has other ids.
    let (collector, _) = export(Reply::ok());
    assert_ne!(collector.spans()[0]["traceId"], server["traceId"]);
}

#[test]
fn a_smallest_exporter_that_fails_says_in_one_sentence_why() {
    let cases = [
        (export_to(DEAD), format!("connection refused by {DEAD}")),
        (export_to("4318"), "no answer from 4318: invalid socket address".to_owned()),
        (export(Reply::json(415, &json!({}))).1, "did not accept the trace: \"HTTP/1.1 415 Scripted\"".to_owned()),
        (export(Reply::Reset).1, "closed the connection without an answer".to_owned()),
        (export(Reply::Garbage).1, "did not accept the trace: \"\\u{16}\\u{3}\\u{1} this is not HTTP\"".to_owned()),
    ];
    for (output, says) in cases {
        let stderr = String::from_utf8(output.stderr).expect("it prints text");
        assert_eq!(output.status.code(), Some(1), "{says}: {stderr}");
        assert!(stderr.contains(&says) && stderr.contains("; next: start a Collector"), "{says}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty() || !says.contains("refused"), "it printed a request that did not leave");
    }
}

#[test]
fn the_smallest_exporter_has_at_most_60_lines_and_only_the_standard_library() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smallest_otlp.rs");
    let source = fs::read_to_string(path).expect("the example is there");
    assert!(source.lines().count() <= 60, "{} lines", source.lines().count());
    for word in ["serde", "cruddur", "extern crate"] {
        assert!(!source.contains(word), "{word}");
    }
    let imports = source.lines().filter_map(|line| line.trim_start().strip_prefix("use "));
    let others: Vec<&str> = imports.filter(|path| !path.starts_with("std::")).collect();
    assert!(others.is_empty(), "not in the standard library: {others:?}");
}

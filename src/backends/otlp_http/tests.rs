use std::sync::Arc;

use serde_json::Value as Json;

use super::response::ExportResponse;
use super::*;
use crate::backends::planned;
use crate::delivery::{Encoder, Plan, State};
use crate::settings::{Env, sample_resource};
use crate::trace::span::{Attribute, Metadata};
use crate::trace::{FinishedTrace, sample};

const GOLDEN: &str = include_str!("../../../tests/data/otlp/trace.json");

fn encoded(batch: &[Arc<FinishedTrace>], max_body: usize) -> Vec<Payload> {
    OtlpJson { resource: sample_resource(), max_body }.encode(batch, 0)
}

fn text(payload: &Payload) -> &str {
    std::str::from_utf8(&payload.bytes).unwrap()
}

fn plan(toml: &str, env: Env) -> (Plan, Vec<String>) {
    planned(settings::plan, toml, env).unwrap()
}

const ON: &str = "[honeycomb]\nenabled = true\n";

fn client(headers: &[(&str, &str)]) -> OtlpHttp {
    let url = Url::parse("https://user:hunter2@api.honeycomb.io/v1/traces").unwrap();
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    OtlpHttp {
        client: HttpClient::new(&url, &Default::default()).unwrap(),
        redactor: redactor(&url, &headers),
        url,
        url_origin: "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
        headers,
        gzip: false,
        max_elapsed_time: None,
    }
}

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, body: body.as_bytes().to_vec(), ..Reply::default() }
}

#[test]
fn the_bytes_are_those_that_the_collector_would_print() {
    assert_eq!(text(&encoded(&[Arc::new(sample::trace())], usize::MAX)[0]), GOLDEN);
}

#[test]
fn spans_of_a_batch_are_grouped_by_scope() {
    let trace = Arc::new(sample::trace());
    let payload = encoded(&[Arc::clone(&trace), trace], usize::MAX).remove(0);
    assert_eq!(payload.items, 4);
    let json: Json = serde_json::from_slice(&payload.bytes).unwrap();
    let scopes = json["resourceSpans"][0]["scopeSpans"].as_array().unwrap();
    assert_eq!(scopes.len(), 2);
    assert!(scopes.iter().all(|scope| scope["spans"].as_array().unwrap().len() == 2));
}

#[test]
fn a_batch_that_is_too_large_is_cut_between_traces_and_nothing_is_lost() {
    let batch: Vec<_> = (0..100).map(|_| Arc::new(sample::trace())).collect();
    let payloads = encoded(&batch, 10_000);
    assert!(payloads.len() > 10);
    assert!(payloads.iter().all(|payload| payload.bytes.len() <= 10_000));
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), 200);
    assert_eq!(encoded(&batch[..1], 1).len(), 1);
}

#[test]
fn numbers_that_json_has_no_word_for_are_never_null() {
    let mut trace = sample::trace();
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        trace.spans[0].attributes.push(Attribute { key: "n".into(), value: number.into() });
    }
    trace.spans[0].attributes.push(Attribute { key: "least".into(), value: i64::MIN.into() });
    let payload = encoded(&[Arc::new(trace)], usize::MAX).remove(0);
    assert!(text(&payload).contains(r#"{"key":"least","value":{"intValue":"-9223372036854775808"}}"#));
    for number in ["NaN", "Infinity", "-Infinity"] {
        assert!(text(&payload).contains(&format!("{{\"doubleValue\":\"{number}\"}}")), "{number}");
    }
    assert!(!text(&payload).contains("null"));
}

#[test]
fn metadata_is_an_attribute_of_both_its_names() {
    let mut trace = sample::trace();
    trace.spans[0].rare_mut().metadata.push(Metadata { namespace: "namespace", key: "key", value: 1_i64.into() });
    let payload = encoded(&[Arc::new(trace)], usize::MAX).remove(0);
    assert!(text(&payload).contains(r#"{"key":"namespace.key","value":{"intValue":"1"}}"#));
}

#[test]
fn every_answer_has_its_outcome() {
    let client = client(&[]);
    let outcome = |status, body: &str| client.answered(&reply(status, body), 100);
    for body in ["", "{}", "{\"partialSuccess\":{}}", "{\"ok\":1}"] {
        assert_eq!(outcome(200, body), Outcome::Delivered, "{body}");
    }
    for body in ["<html>", "\u{1}\u{2}"] {
        assert!(matches!(outcome(200, body), Outcome::Unconfirmed(_)), "{body}");
    }
    for rejected in ["2", "\"2\""] {
        let body = format!(r#"{{"partialSuccess":{{"rejectedSpans":{rejected},"errorMessage":"too old"}}}}"#);
        let Outcome::Partly { rejected, problem } = outcome(200, &body) else { panic!("{body}") };
        assert_eq!(rejected, 2);
        assert!(problem.message.to_string().contains("rejected 2 spans: too old"), "{}", problem.message);
    }
    let warning = outcome(200, r#"{"partialSuccess":{"errorMessage":"slow down"}}"#);
    assert!(matches!(warning, Outcome::Warned(_)), "a message without a number is a warning");
    for status in [429, 502, 503, 504] {
        assert!(matches!(outcome(status, ""), Outcome::Later { .. }), "{status}");
    }
    for status in [301, 308, 401, 403, 404, 405, 500, 501, 520] {
        assert!(matches!(outcome(status, ""), Outcome::RefusedForNow(_)), "{status}");
    }
    for status in [400, 413, 415, 422] {
        assert!(matches!(outcome(status, ""), Outcome::Refused(_)), "{status}");
    }
}

/// Number of rejected spans and message, or the reason why a body is not an OTLP response.
type BodyMeaning = Result<(u64, &'static str), &'static str>;

/// A header, a body, and its meaning.
const RESPONSES: &[(&str, &str, BodyMeaning)] = &[
    ("", "", Ok((0, ""))),
    ("", " \r\n", Ok((0, ""))),
    ("", "\u{feff}", Ok((0, ""))),
    ("", "{}", Ok((0, ""))),
    ("", "\u{feff}{}", Ok((0, ""))),
    ("", r#"{"ok":1}"#, Ok((0, ""))),
    ("", r#"{"partialSuccess":null}"#, Ok((0, ""))),
    ("", r#"{"partial_success":{}}"#, Ok((0, ""))),
    ("", r#"{"partialSuccess":{"somethingNew":[1]}}"#, Ok((0, ""))),
    ("", r#"{"code":0,"message":""}"#, Ok((0, ""))),
    ("", r#"{"error":null,"errors":[]}"#, Ok((0, ""))),
    ("content-encoding: identity", "{}", Ok((0, ""))),
    ("content-encoding: br", "", Ok((0, ""))),
    ("", r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#, Ok((2, "too old"))),
    ("", r#"{"partialSuccess":{"rejectedSpans":2}}"#, Ok((2, ""))),
    ("", r#"{"partialSuccess":{"rejectedSpans":2.0,"errorMessage":null}}"#, Ok((2, ""))),
    ("", r#"{"partial_success":{"rejected_spans":"1","error_message":"too old"}}"#, Ok((1, "too old"))),
    ("", r#"{"partialSuccess":{"rejected_spans":3,"errorMessage":" slow "}}"#, Ok((3, "slow"))),
    ("", r#"{"partialSuccess":{"rejectedSpans":-1}}"#, Ok((0, ""))),
    ("content-type: application/x-protobuf", "\n\u{6}\u{8}\u{2}\u{12}\u{2}no", Ok((2, "no"))),
    ("content-type: application/x-protobuf", "\n\u{0}", Ok((0, ""))),
    ("content-type: application/x-protobuf", "\n\u{7f}", Err("its body is not protobuf")),
    ("", r#"{"partialSuccess":"yes"}"#, Err("its partialSuccess is not an object")),
    ("", r#"{"partialSuccess":{"rejectedSpans":"many"}}"#, Err("its partialSuccess cannot be read")),
    ("", r#"{"code":3,"message":"bad"}"#, Err("its body is an error")),
    ("", r#"{"code":"16"}"#, Err("its body is an error")),
    ("", r#"{"error":"no such index"}"#, Err("its body is an error")),
    ("", r#"{"errors":[{"message":"x"}]}"#, Err("its body is an error")),
    ("", "[]", Err("its body is not a JSON object")),
    ("", "null", Err("its body is not a JSON object")),
    ("", "\"ok\"", Err("its body is not a JSON object")),
    ("", "OK", Err("its body is not JSON")),
    ("", "\u{1f}\u{8}", Err("its body is not JSON")),
    ("content-encoding: gzip", "\u{1f}\u{8}", Err("its body has Content-Encoding: gzip, which was not asked for")),
    ("", "\n<!DOCTYPE html><html>", Err("web page")),
    ("content-type: text/html", "<HTML lang=en>", Err("web page")),
];

#[test]
fn what_a_2xx_means_is_read_from_its_body() {
    for (header, body, meaning) in RESPONSES {
        let reply = Reply { head: format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n"), ..reply(200, body) };
        let expected = match meaning {
            Ok((0, "")) => ExportResponse::Success,
            Ok((rejected, message)) => ExportResponse::Partial(*rejected, (*message).to_owned()),
            Err("web page") => ExportResponse::WebPage,
            Err(why) => ExportResponse::Foreign((*why).to_owned()),
        };
        assert_eq!(ExportResponse::read(&reply), expected, "{header} {body}");
    }
    let broken = Reply { broken: Some(CallError::Closed), ..reply(200, "{\"partialSucc") };
    assert!(matches!(client(&[]).answered(&broken, 1), Outcome::Warned(_)), "the status says that it was accepted");
}

#[test]
fn a_refusal_says_what_the_server_said_and_what_to_do() {
    let client = client(&[
        (settings::TEAM, "abcdefghijklmnop1234"),
        ("authorization", "Bearer sekrettokenvalue"),
        ("x-tenant", "a"),
    ]);
    for (status, body, parts) in [
        (401, r#"{"message":"unknown API key"}"#, ["(unknown API key)", "ending in 1234 (20 characters)"]),
        (401, r#"{"message":"missing 'x-honeycomb-dataset' header"}"#, ["Classic", "dataset"]),
        (401, r#"{"message":"no team for abcdefghijklmnop1234"}"#, ["no team for ***", "ending in 1234"]),
        (404, "404 page not found\n", ["(404 page not found)", "OTEL_EXPORTER_OTLP_ENDPOINT"]),
        (413, "", ["/v1/traces; next: lower max_export_batch_size", "100 bytes"]),
        (401, r#"{"message":"bad token sekrettokenvalue"}"#, ["(bad token ***)", "ending in"]),
        (500, "\u{1b}[31mred", ["( [31mred)", "counted as refused"]),
    ] {
        let outcome = client.answered(&reply(status, body), 100);
        let text = outcome.problem().unwrap().message.to_string();
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("hunter2") && !text.contains("abcdef"), "{text}");
        let reason = reason_phrase(status);
        let beginning = format!("HTTP {status} {reason} from https://api.honeycomb.io/v1/traces");
        assert!(text.starts_with(&beginning), "{text}");
    }
    let straddling = format!("{}abcdefghijklmnop1234", "x".repeat(190));
    let Outcome::Refused(problem) = client.answered(&reply(400, &straddling), 1) else { panic!() };
    assert!(!problem.message.to_string().contains("abcd"), "{}", problem.message);
    let long = client.answered(&reply(400, &"é".repeat(10_000)), 100);
    assert!(matches!(long, Outcome::Refused(problem) if problem.message.to_string().len() < 1000));
}

#[test]
fn a_call_that_fails_is_tried_again_unless_nothing_would_change() {
    let client = client(&[]);
    for error in [
        CallError::ConnectionRefused,
        CallError::UnknownHost,
        CallError::Timeout(None),
        CallError::Other("x".to_owned()),
    ] {
        assert!(matches!(client.unanswered(&error), Outcome::Later { after: None, .. }), "{error:?}");
    }
    assert!(matches!(client.unanswered(&CallError::Closed), Outcome::Closed(_)));
    for error in [CallError::Tls("unknown issuer".to_owned()), CallError::NotHttp("garbage".to_owned())] {
        assert!(matches!(client.unanswered(&error), Outcome::RefusedForNow(_)), "{error:?}");
    }
}

#[test]
fn without_a_word_in_the_file_honeycomb_is_off_and_says_how_to_turn_it_on() {
    let (plan, _) = plan("", Env::default());
    assert_eq!(plan.state.as_str(), "off");
    assert!(plan.reason.contains("enabled = true under [honeycomb]"), "{}", plan.reason);
}

#[test]
fn without_a_key_honeycomb_waits_and_names_the_variable() {
    for env in [
        Env::default(),
        Env::from([("HONEYCOMB_API_KEY", "")]),
        Env::from([("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=")]),
    ] {
        let (plan, _) = plan(ON, env);
        assert_eq!(plan.state.as_str(), "waiting");
        assert!(plan.reason.contains("HONEYCOMB_API_KEY"), "{}", plan.reason);
    }
    let (own, _) = plan(ON, Env::from([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")]));
    assert_eq!(own.state.as_str(), "on", "{}", own.reason);
}

#[test]
fn addresses_are_resolved_as_the_specification_says() {
    for (name, value, url) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/", "http://c:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/prefix", "http://c/prefix/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/v1/traces", "http://c/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318", "http://c:4318/"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x", "http://c/x"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:p@c/x?k=v", "http://c/x"),
    ] {
        let (plan, _) = plan(ON, Env::from([(name, value)]));
        assert_eq!((plan.destination.as_str(), plan.state.as_str()), (url, "on"), "{name}={value}: {}", plan.reason);
    }
}

#[test]
fn an_invalid_address_makes_the_backend_wait_and_is_named() {
    for value in ["api.honeycomb.io:443", "ftp://c", "http://", "https://${HOST}", "http:// c", "http://c?k=v"] {
        let (plan, _) = plan(ON, Env::from([("OTEL_EXPORTER_OTLP_ENDPOINT", value), ("HONEYCOMB_API_KEY", "k")]));
        assert_eq!(plan.state.as_str(), "waiting", "{value}");
        assert!(plan.reason.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT="), "{}", plan.reason);
    }
}

#[test]
fn a_header_that_cannot_be_sent_is_skipped_and_said_without_its_value() {
    let text = "host=evil,x-honeycomb-team: hunter2,,a=b%20c,x-honeycomb-dataset=,k=${HUNTER2},A=second,n=hunter2%0d%0aevil: 1";
    let (plan, notices) =
        plan(ON, Env::from([("OTEL_EXPORTER_OTLP_HEADERS", text), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")]));
    assert!(plan.reason.contains("headers content-type, user-agent, a;"), "{}", plan.reason);
    let notices = notices.join("\n");
    for part in [
        "host is not sent",
        "header 2 is not sent; next: write name=value, not name: value",
        "x-honeycomb-dataset is not sent, because it has no value",
        "k is not sent, because its value has a variable",
        "n is not sent, because its value has characters",
    ] {
        assert!(notices.contains(part), "{part} in {notices}");
    }
    assert!(!notices.to_lowercase().contains("hunter2"), "{notices}");
}

#[test]
fn values_that_other_sdks_treat_differently_are_reported() {
    let (_, notices) = plan(
        ON,
        Env::from([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/v1/traces"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10"),
        ]),
    );
    let notices = notices.join("\n");
    for part in [
        "not appended again",
        "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT: timeout = 10 is in milliseconds",
    ] {
        assert!(notices.contains(part), "{part} in {notices}");
    }
}

#[test]
fn a_certificate_that_cannot_be_read_makes_it_wait() {
    for (name, part) in
        [("OTEL_EXPORTER_OTLP_CERTIFICATE", "no/such.pem"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "no/such.pem")]
    {
        let env = Env::from([(name, "no/such.pem"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")]);
        let (plan, _) = plan(ON, env);
        assert!(matches!(plan.state, State::Waiting));
        assert!(plan.reason.contains(part), "{}", plan.reason);
    }
}

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::limits::{Limits, XRaySpans};
use super::*;
use crate::backends::otlp_http::encode::OtlpJson;
use crate::backends::planned;
use crate::delivery::{Encoder, Plan, State};
use crate::settings::{Env, Findings, Sources, sample_resource};
use crate::text::explanation::Body;
use crate::trace::span::{Attribute, Event, SpanData, Status};
use crate::trace::{FinishedTrace, sample};
use crate::wire::http::Reply;

const HOUR: u64 = 3_600_000_000_000;
const MAX_BODY: usize = 50_000;
/// Smaller limits than AWS's, so that the tests are fast.
const LIMITS: Limits = Limits { spans: 100, span: 20_000, period: 24 * HOUR };

fn encoded(batch: &[Arc<FinishedTrace>]) -> Vec<Payload> {
    XRaySpans { otlp: OtlpJson { resource: sample_resource(), max_body: MAX_BODY }, limits: LIMITS }.encode(batch, 0)
}

/// All spans of a payload, in any scope.
fn spans(payload: &Payload) -> Vec<Json> {
    let json: Json = serde_json::from_slice(&payload.bytes).unwrap();
    let scopes = json["resourceSpans"][0]["scopeSpans"].as_array().unwrap().clone();
    scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap().clone()).collect()
}

/// Checks each limit that depends on the request alone.
#[track_caller]
fn assert_within_limits(payloads: &[Payload]) {
    for payload in payloads {
        let spans = spans(payload);
        assert_eq!(spans.len(), payload.items);
        assert!(payload.bytes.len() <= MAX_BODY && spans.len() <= LIMITS.spans);
        assert!(spans.iter().all(|span| span.to_string().len() <= LIMITS.span));
        let start = |span: &Json| span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap();
        let (first, last) = (spans.iter().map(start).min().unwrap(), spans.iter().map(start).max().unwrap());
        assert!(last - first < LIMITS.period);
    }
}

/// The sample trace, with a change to its spans.
fn trace(change: impl Fn(&mut Vec<SpanData>)) -> Arc<FinishedTrace> {
    let mut trace = sample::trace();
    change(&mut trace.spans);
    Arc::new(trace)
}

/// The sample trace that starts this many nanoseconds later.
fn later(by: u64) -> Arc<FinishedTrace> {
    trace(|spans| spans.iter_mut().for_each(|span| (span.start, span.end) = (span.start + by, span.end + by)))
}

fn large_text(bytes: usize) -> String {
    "\u{1}\"é".repeat(bytes / 4)
}

#[test]
fn a_batch_within_the_limits_has_the_bytes_of_honeycomb() {
    let batch = vec![later(0); 50];
    let payloads = XRaySpans::new(sample_resource()).encode(&batch, 0);
    assert_eq!(payloads, OtlpJson::new(sample_resource()).encode(&batch, 0));
    assert_eq!(payloads.len(), 1);
}

#[test]
fn a_batch_above_a_limit_becomes_several_requests_and_no_span_is_lost() {
    let many = trace(|spans| spans.resize(251, spans[1].clone()));
    let long = trace(|spans| spans[0].attributes.push(Attribute::new("long", "x".repeat(15_000))));
    let mut all = 0;
    for batch in [
        vec![later(0); 60],
        vec![many],
        vec![Arc::clone(&long); 40],
        vec![trace(|spans| {
            spans.resize(40, SpanData { attributes: long.spans[0].attributes.clone(), ..spans[1].clone() })
        })],
        vec![later(0), later(25 * HOUR), later(2 * HOUR), later(48 * HOUR)],
        vec![trace(|spans| spans[1].start += 30 * HOUR)],
    ] {
        let payloads = encoded(&batch);
        assert!(payloads.len() > 1, "{}", payloads.len());
        assert_within_limits(&payloads);
        let sent: usize = payloads.iter().map(|payload| payload.items).sum();
        assert_eq!(sent, batch.iter().map(|trace| trace.spans.len()).sum::<usize>());
        assert!(payloads.iter().all(|payload| payload.trimmed.is_none()));
        all += sent;
    }
    assert_eq!(all, 120 + 251 + 80 + 40 + 8 + 2);
}

#[test]
fn only_the_first_part_of_a_trace_has_the_caller() {
    let mut whole = sample::trace();
    (whole.trace_state, whole.remote_parent) = ("congo=t61".to_owned(), true);
    whole.spans.resize(LIMITS.spans + 1, whole.spans[1].clone());
    let payloads = encoded(&[Arc::new(whole)]);
    let spans: Vec<_> = payloads.iter().flat_map(spans).collect();
    assert_eq!(spans.iter().filter(|span| span["traceState"].is_string()).count(), 1);
    assert_eq!(spans.iter().filter(|span| span["flags"].as_u64().unwrap() & 512 != 0).count(), 1);
}

#[test]
fn a_span_that_is_too_large_loses_its_largest_parts_which_are_counted() {
    let attribute = |key: &'static str, bytes| Attribute::new(key, large_text(bytes));
    let event = |bytes| Event {
        time: 0,
        name: "exception".into(),
        attributes: vec![attribute("exception.message", bytes)],
        dropped_attributes: 0,
    };
    let batch = [
        Arc::new(sample::trace()),
        trace(|spans| spans[1].attributes.extend([attribute("large", 9000), attribute("small", 1000)])),
        trace(|spans| spans[0].rare_mut().events = vec![event(9000), event(400)]),
        trace(|spans| spans[0].rare_mut().status = Status::Error(large_text(20_000))),
        trace(|spans| spans[0].name = Cow::Owned(large_text(20_000))),
    ];
    let payloads = encoded(&batch);
    assert_within_limits(&payloads);
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), 10);
    let trimmed: Vec<_> = payloads.iter().filter_map(|payload| payload.trimmed.as_ref()).collect();
    assert_eq!(trimmed.len(), 4);
    assert!(trimmed[0].message.to_string().starts_with("1 span of more than 20000 bytes went without "), "{trimmed:?}");
    let without_attribute = &spans(&payloads[1])[1];
    assert_eq!(without_attribute["droppedAttributesCount"], 1);
    assert!(without_attribute.to_string().contains("small") && !without_attribute.to_string().contains("large"));
    let without_event = &spans(&payloads[2])[0];
    assert_eq!((&without_event["droppedEventsCount"], &without_event["events"][1]), (&json!(1), &Json::Null));
}

#[test]
fn times_are_those_of_the_service_if_our_clock_is_wrong() {
    let start = |offset| {
        let payloads = XRaySpans::new(vec![]).encode(&[Arc::new(sample::trace())], offset);
        spans(&payloads[0])[0]["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(start(0), sample::trace().spans[0].start);
    assert_eq!(start(-600_000), sample::trace().spans[0].start - 600 * 1_000_000_000);
}

fn plan(toml: &str, env: Env) -> (Plan, Vec<String>) {
    planned(settings::plan, toml, env).unwrap()
}

const ON: &str = "[xray_otlp]\nenabled = true\n";

#[test]
fn the_address_is_the_region_s_and_a_missing_region_is_said() {
    let region = ("AWS_REGION", "eusc-de-east-1");
    let (found, findings) = plan(ON, Env::from([region]));
    assert_eq!((found.state, findings), (State::On, vec![]));
    assert_eq!(found.destination, "https://xray.eusc-de-east-1.amazonaws.eu/v1/traces");
    let (found, _) = plan(ON, Env::from([region, ("AWS_ENDPOINT_URL_XRAY", "http://localhost:4566/")]));
    assert_eq!(found.destination, "http://localhost:4566/v1/traces");
    assert!(found.reason.contains("address from AWS_ENDPOINT_URL_XRAY"), "{}", found.reason);
    let (found, _) = plan(ON, Env::default());
    assert_eq!(found.state, State::Waiting);
    assert!(found.reason.starts_with("no AWS region: ") && found.reason.contains("; next: "), "{}", found.reason);
    assert_eq!(plan("", Env::from([region])).0.state, State::Off);
}

#[test]
fn two_ways_to_x_ray_are_warned_about() {
    let region = ("AWS_REGION", "us-east-1");
    let both = format!("{ON}[xray]\nenabled = true\n");
    let (_, findings) = plan(&both, Env::from([region]));
    assert!(matches!(&findings[..], [one] if one.contains("every trace arrives twice")), "{findings:?}");
    let (_, findings) = plan(&both, Env::from([region, ("AWS_XRAY_SDK_ENABLED", "false")]));
    assert_eq!(findings, [""; 0]);
}

/// Outcome of a response, with its next step.
fn outcome(reply: &Reply) -> (&'static str, String) {
    let sources = Sources::from_text("", Env::from([("AWS_REGION", "us-east-1")])).unwrap();
    let (values, findings) = (&mut Default::default(), &mut Findings::default());
    let (client, _) =
        AwsClient::new(NAME, crate::wire::aws_credentials::XRAY, PATH, &sources, values, findings).unwrap();
    let backend = XRayOtlp { client, gzip: false };
    let answered = Answered { reply: Reply { ..copy(reply) }, redactor: Default::default(), clock_moved: false };
    let payload = Payload { bytes: vec![0; 7], items: 1, traces: vec![], trimmed: None };
    let (name, problem) = match backend.outcome(&TracesResponse::read(reply), &answered, &payload) {
        Outcome::Delivered => return ("delivered", String::new()),
        Outcome::Warned(problem) => ("warned", problem),
        Outcome::Partly { problem, .. } => ("partly", problem),
        Outcome::Refused(problem) => ("refused", problem),
        Outcome::RefusedForNow(problem) => ("refused for now", problem),
        Outcome::Unconfirmed(problem) => ("unconfirmed", problem),
        Outcome::Closed(problem) => ("closed", problem),
        Outcome::Later { problem, .. } => ("later", problem),
    };
    (name, problem.message.to_string())
}

fn copy(reply: &Reply) -> Reply {
    Reply { status: reply.status, head: reply.head.clone(), body: reply.body.clone(), ..Reply::default() }
}

#[test]
fn every_response_has_its_outcome_and_its_sentence() {
    let search_off = "The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination. Please enable it.";
    for (status, code, message, expected, says) in [
        (200, "", "", "delivered", ""),
        (400, "", search_off, "later", "update-trace-segment-destination --destination CloudWatchLogs"),
        (400, "InvalidRequestException", "Transaction Search is not enabled", "later", "turn Transaction Search on"),
        (400, "InvalidRequestException", "a span is too old", "refused", "correct what the endpoint names"),
        (403, "InvalidSignatureException", "no", "later", "check AWS_SECRET_ACCESS_KEY, the region and this"),
        (403, "", "The request signature we calculated does not match", "later", "check AWS_SECRET_ACCESS_KEY"),
        (403, "UnrecognizedClientException", "no", "later", "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN"),
        (403, "", "The security token included in the request is invalid", "later", "check AWS_ACCESS_KEY_ID"),
        (403, "", "Missing Authentication Token", "later", "check AWS_ACCESS_KEY_ID"),
        (403, "AccessDeniedException", "no", "later", "allow xray:PutTraceSegments, xray:PutSpans and"),
        (403, "", "User: x is not authorized to perform: xray:PutSpans", "later", "allow xray:PutTraceSegments"),
        (403, "ExpiredTokenException", "no", "later", "get new credentials"),
        (403, "", "The security token included in the request is expired", "later", "get new credentials"),
        (403, "", "Forbidden", "later", "check proxies"),
        (400, "ThrottlingException", "Rate exceeded", "later", "retried more slowly"),
        (400, "ProvisionedThroughputExceededException", "", "later", "retried more slowly"),
        (429, "", "", "later", "retried more slowly"),
        (500, "", "", "later", "the spans are retried"),
        (503, "SlowDown", "", "later", "retried more slowly"),
        (413, "", "", "refused", "lower max_export_batch_size in [xray_otlp]; the request had 7 bytes"),
        (404, "", "", "later", "check the address"),
        (302, "", "", "later", "check proxies"),
        (407, "", "", "later", "check proxies"),
    ] {
        let body = if message.is_empty() { String::new() } else { json!({ "message": message }).to_string() };
        for named in [format!("x-amzn-errortype: {code}:http://x/\r\n"), String::new()] {
            let mut body = body.clone();
            if named.is_empty() && !code.is_empty() {
                body = json!({ "__type": format!("com.amazonaws.xray#{code}"), "message": message }).to_string();
            }
            let named = if code.is_empty() { String::new() } else { named };
            let head = format!("HTTP/1.1 {status} X\r\n{named}\r\n");
            let (name, text) = outcome(&Reply { status, head, body: body.into_bytes(), ..Reply::default() });
            assert_eq!((name, text.contains(says)), (expected, true), "{status} {code} {message}: {text}");
            assert!(text.contains(message), "{text}");
        }
    }
    for (body, expected) in [
        (r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#, "partly"),
        ("<html>log in</html>", "unconfirmed"),
        (r#"{"__type":"ThrottlingException"}"#, "later"),
    ] {
        assert_eq!(outcome(&Reply { status: 200, body: body.into(), ..Reply::default() }).0, expected, "{body}");
    }
}

#[test]
fn the_explanation_has_the_body_of_honeycomb_with_a_note_on_every_field() {
    let sections = explain::explain();
    let Body::Json(json) = &sections[0].body else { panic!("the body is JSON") };
    assert_eq!(json.without_note(), [""; 0]);
    let otlp = OtlpJson::new(sample_resource()).encode(&[Arc::new(sample::request())], 0);
    let request = sections.last().unwrap().print();
    assert!(request.ends_with(&format!("\n\n{}\n", String::from_utf8_lossy(&otlp[0].bytes))));
    assert!(request.starts_with("POST /v1/traces HTTP/1.1\n") && request.contains("/us-east-1/xray/aws4_request"));
}

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::tree::Documents;
use super::*;
use crate::backends::planned;
use crate::delivery::{Encoder, Plan};
use crate::golden;
use crate::settings::Env;
use crate::trace::context::TraceFlags;
use crate::trace::id::{IdSource, SpanId, TraceId};
use crate::trace::sampler::{BackendDecision, Decision, Reason, RuleDecision, RuleSource};
use crate::trace::span::{Attribute, Event, Metadata, Scope, SpanData, SpanKind, Status};
use crate::trace::{FinishedTrace, Value, sample};

const MAX_DATAGRAM: usize = 65_507;

fn documents() -> Documents {
    Documents { service_name: "backend-flask".to_owned(), log_group: Some("cruddur".to_owned()) }
}

fn payloads(trace: &FinishedTrace) -> Vec<Payload> {
    documents().encode(&[Arc::new(trace.clone())], 0)
}

fn document(payload: &Payload) -> Json {
    let text = std::str::from_utf8(&payload.bytes).unwrap();
    let (header, document) = text.split_once('\n').unwrap();
    assert_eq!(header, r#"{"format":"json","version":1}"#);
    serde_json::from_str(document).unwrap()
}

fn only(trace: &FinishedTrace) -> Json {
    let payloads = payloads(trace);
    assert_eq!(payloads.len(), 1);
    document(&payloads[0])
}

fn expected(sample: &str) -> Json {
    let path = format!("{}/tests/data/xray/samples/{sample}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn attributes<const N: usize>(pairs: [(&'static str, Value); N]) -> Vec<Attribute> {
    pairs.into_iter().map(|(key, value)| Attribute { key: Cow::Borrowed(key), value }).collect()
}

fn span(id: &str, parent: Option<&str>, name: &'static str, kind: SpanKind, start: u64, end: u64) -> SpanData {
    let (id, parent) = (SpanId::from_hex(id).unwrap(), parent.map(|parent| SpanId::from_hex(parent).unwrap()));
    let span = SpanData::new(id, Scope::named("test"), Cow::Borrowed(name), kind, start * 1000);
    SpanData { parent, end: end * 1000, ..span }
}

fn trace(id: &str, spans: Vec<SpanData>) -> FinishedTrace {
    let by = RuleDecision::Reservoir { taken: 1, size: 5 };
    let reason = Reason::Rule { name: "Cruddur".into(), source: RuleSource::Local, by };
    FinishedTrace {
        trace_id: TraceId::from_xray(id).unwrap(),
        trace_state: String::new(),
        flags: TraceFlags { sampled: true, random: true },
        remote_parent: spans[0].parent.is_some(),
        decision: Decision { sampled: true, reason: Reason::Always },
        backend_decisions: vec![BackendDecision {
            backend: "xray",
            decision: Decision { sampled: true, reason },
            service_name: "backend-flask".into(),
        }],
        spans,
    }
}

fn user_route() -> FinishedTrace {
    let mut server =
        span("70de5b6f19ff9a0a", None, "GET /", SpanKind::Server, 1_478_293_361_271_000, 1_478_293_361_449_000);
    server.attributes = attributes([
        ("http.request.method", "GET".into()),
        ("url.path", "/api/activities/@andrewbrown".into()),
        ("url.query", "sig=secret".into()),
        ("url.scheme", "http".into()),
        ("server.address", "localhost".into()),
        ("server.port", 4567_i64.into()),
        ("client.address", "172.19.0.1".into()),
        ("network.peer.address", "172.19.0.1".into()),
        ("user_agent.original", "curl/7.88.1".into()),
        ("http.response.status_code", 200_i64.into()),
        ("http.response.body.size", 217_i64.into()),
        ("route", "data_handle".into()),
        ("results.size", 1_i64.into()),
    ]);
    let activities = span(
        "53995c3f42cd8ad8",
        Some("70de5b6f19ff9a0a"),
        "user_activities",
        SpanKind::Internal,
        1_478_293_361_272_000,
        1_478_293_361_448_000,
    );
    let mut mock = span(
        "24756640c0d0978a",
        Some("53995c3f42cd8ad8"),
        "mock-data",
        SpanKind::Internal,
        1_478_293_361_300_000,
        1_478_293_361_301_000,
    );
    let facts = attributes([("now", "2016-11-04T21:02:41.300000".into()), ("results-size", 1_i64.into())]);
    mock.rare_mut().metadata.push(Metadata { namespace: "namespace", key: "key", value: Value::Map(facts) });
    trace("1-581cf771-a006649127e371903a2de979", vec![server, activities, mock])
}

#[test]
fn the_user_route_is_the_sample_document() {
    let mut expected = expected("server");
    expected["aws"]["xray"]["sdk_version"] = env!("CARGO_PKG_VERSION").into();
    expected["service"] = json!({ "version": env!("CARGO_PKG_VERSION"), "runtime": "rustc" });
    assert_eq!(only(&user_route()), expected);
}

#[test]
fn a_datagram_is_compact_and_begins_with_the_two_ids() {
    golden::check("xray_datagram.txt", &payloads(&user_route())[0].bytes);
    let text = String::from_utf8(payloads(&user_route()).remove(0).bytes).unwrap();
    let begin = r#"{"id":"70de5b6f19ff9a0a","trace_id":"1-581cf771-a006649127e371903a2de979","name":"backend-flask""#;
    assert!(text.split_once('\n').unwrap().1.starts_with(begin), "{text}");
    assert!(!text.contains("secret") && !text.contains("\": "), "{text}");
}

#[test]
fn an_exception_stands_where_it_happened_and_the_segment_names_it() {
    let mut server = span(
        "6226467e3f845502",
        Some("defdfd9912dc5a56"),
        "POST /",
        SpanKind::Server,
        1_478_293_362_000_125,
        1_478_293_362_004_251,
    );
    server.rare_mut().status = Status::Error(String::new());
    server.attributes = attributes([
        ("http.request.method", "POST".into()),
        ("url.path", "/api/activities".into()),
        ("url.scheme", "http".into()),
        ("server.address", "localhost".into()),
        ("server.port", 4567_i64.into()),
        ("client.address", "203.0.113.7".into()),
        ("network.peer.address", "10.0.0.1".into()),
        ("user_agent.original", "Mozilla/5.0".into()),
        ("http.response.status_code", 500_i64.into()),
        ("http.response.body.size", 35_i64.into()),
        ("error.type", "500".into()),
    ]);
    let mut create = span(
        "0e58d2918e9038e8",
        Some("6226467e3f845502"),
        "create_activity",
        SpanKind::Internal,
        1_478_293_362_000_500,
        1_478_293_362_004_000,
    );
    create.rare_mut().status = Status::Error("missing".to_owned());
    create.rare_mut().events.push(Event {
        time: 0,
        name: Cow::Borrowed("exception"),
        attributes: attributes([
            ("exception.type", "KeyError".into()),
            ("exception.message", "missing field `user_handle`".into()),
            ("exception.stacktrace", "at src/routes/activities.rs:42:7".into()),
        ]),
        dropped_attributes: 0,
    });
    let found = only(&trace("1-581cf772-b117759238f482a14b3ef080", vec![server, create]));

    let sample = expected("error_cause");
    for key in ["id", "trace_id", "parent_id", "name", "start_time", "end_time", "http", "fault"] {
        assert_eq!(found[key], sample[key], "{key}");
    }
    let exception = &found["subsegments"][0]["cause"]["exceptions"][0];
    let theirs = &sample["subsegments"][0]["cause"]["exceptions"][0];
    for key in ["type", "message", "remote"] {
        assert_eq!(exception[key], theirs[key], "{key}");
    }
    assert_eq!(exception["stack"][0], theirs["stack"][0]);
    assert_eq!(found["subsegments"][0]["fault"], true);
    assert_eq!(found["cause"], exception["id"]);
    assert_eq!(found["cause"].as_str().unwrap().len(), 16);
    assert!(found.get("error").is_none());
}

#[test]
fn a_status_sets_the_flags_that_the_service_map_colours_by() {
    for (status, flags) in [
        (200_i64, [false, false, false]),
        (302, [false, false, false]),
        (404, [true, false, false]),
        (422, [true, false, false]),
        (429, [true, true, false]),
        (500, [false, false, true]),
        (503, [false, false, true]),
    ] {
        let mut trace = user_route();
        let status = Value::from(status);
        trace.spans[0].attributes.iter_mut().find(|a| a.key == "http.response.status_code").unwrap().value =
            status.clone();
        let document = only(&trace);
        let found = ["error", "throttle", "fault"].map(|flag| document.get(flag).is_some());
        assert_eq!(found, flags, "{status:?}");
    }
}

#[test]
fn an_outgoing_call_is_remote_and_named_after_its_host() {
    let mut trace = user_route();
    let call = &mut trace.spans[2];
    call.kind = SpanKind::Client;
    call.attributes = attributes([
        ("http.request.method", "GET".into()),
        ("url.full", "https://api.test/v1?key=secret".into()),
        ("server.address", "api.test".into()),
        ("http.response.status_code", 429_i64.into()),
    ]);
    let call = only(&trace)["subsegments"][0]["subsegments"][0].clone();
    assert_eq!((&call["name"], &call["namespace"]), (&json!("api.test"), &json!("remote")));
    assert_eq!(call["http"]["request"]["url"], "https://api.test/v1");
    assert_eq!((&call["throttle"], &call["error"]), (&json!(true), &json!(true)));
}

#[test]
fn what_cannot_be_indexed_is_metadata() {
    let document = only(&sample::trace());
    let inner = &document["subsegments"][0];
    let indexed: HashSet<_> = inner["annotations"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(indexed, HashSet::from(["app_now", "app_result_length", "app_ratio", "app_cached", "app_unicode"]));
    let kept = inner["metadata"]["attributes"].as_object().unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["app.map"]);
}

#[test]
fn a_trace_has_fifty_annotations_and_keeps_the_others_as_metadata() {
    let mut trace = user_route();
    for index in [1, 2] {
        let many = (0..40_i64).map(|n| Attribute { key: format!("k{n}").into(), value: n.into() });
        trace.spans[index].attributes = many.collect();
    }
    let document = only(&trace);
    let outer = &document["subsegments"][0];
    let inner = &outer["subsegments"][0];
    let count = |span: &Json, key: &str| span[key].as_object().map_or(0, serde_json::Map::len);
    assert_eq!([count(&document, "annotations"), count(outer, "annotations"), count(inner, "annotations")], [2, 40, 8]);
    assert_eq!(count(&inner["metadata"], "attributes"), 32);
}

#[test]
fn a_document_that_is_too_large_sends_its_subsegments_first_and_loses_no_span() {
    let mut trace = user_route();
    for n in 0..100 {
        let id = format!("{:016x}", 0x1000 + n);
        let mut child = span(&id, Some("53995c3f42cd8ad8"), "child", SpanKind::Internal, 1, 2);
        let value = Value::from("x".repeat(2000));
        child.rare_mut().metadata.push(Metadata { namespace: "n", key: "k", value });
        trace.spans.push(child);
    }
    let payloads = payloads(&trace);
    assert!(payloads.len() > 2);
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), trace.spans.len());
    for payload in &payloads {
        assert!(payload.bytes.len() <= 64_030 && payload.trimmed.is_none());
    }
    let last = document(payloads.last().unwrap());
    assert_eq!(last["name"], "backend-flask");
    let child = document(&payloads[0]);
    assert_eq!(child["type"], "subsegment");
    assert_eq!(child["trace_id"], last["trace_id"]);
    assert!(child["parent_id"].is_string());
}

#[test]
fn a_span_that_is_too_large_by_itself_goes_without_its_metadata_and_says_so() {
    let mut trace = user_route();
    trace.spans[2].rare_mut().metadata[0].value = Value::from("é".repeat(70_000));
    let payloads = payloads(&trace);
    let trimmed: Vec<_> = payloads.iter().filter_map(|payload| payload.trimmed.as_ref()).collect();
    assert_eq!(trimmed.len(), 1);
    let text = trimmed[0].message.to_string();
    assert!(text.contains("metadata") && text.contains("mock-data"), "{text}");
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), 3);
}

#[test]
fn a_chain_of_sixty_thousand_spans_neither_overflows_the_stack_nor_takes_for_ever() {
    let mut trace = user_route();
    for n in 0..60_000_u64 {
        let mut child = span("00000000000000aa", None, "child", SpanKind::Internal, 1, 2);
        child.parent = Some(trace.spans[trace.spans.len() - 1].id);
        child.id = SpanId::from_hex(&format!("{:016x}", n + 0x1000)).unwrap();
        trace.spans.push(child);
    }
    let payloads = payloads(&trace);
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), trace.spans.len());
}

#[test]
fn exceptions_that_are_too_long_are_cut_until_the_document_fits() {
    let mut trace = user_route();
    for _ in 0..8 {
        let attributes = attributes([
            ("exception.message", "\u{1}".repeat(2000).into()),
            ("exception.type", "\u{1}".repeat(500).into()),
            ("exception.stacktrace", format!("at {}:1:1", "\u{1}".repeat(300)).into()),
        ]);
        trace.spans[2].rare_mut().events.push(Event {
            time: 0,
            name: Cow::Borrowed("exception"),
            attributes,
            dropped_attributes: 0,
        });
    }
    let payloads = payloads(&trace);
    assert!(payloads.iter().all(|payload| payload.bytes.len() <= 64_030));
    assert!(
        payloads
            .iter()
            .any(|payload| payload.trimmed.as_ref().is_some_and(|it| it.message.what.contains("exceptions")))
    );
}

#[test]
fn two_keys_that_would_be_one_are_both_kept() {
    let mut trace = user_route();
    trace.spans[2].attributes = attributes([("a.b", 1_i64.into()), ("a_b", 2_i64.into())]);
    let inner = only(&trace)["subsegments"][0]["subsegments"][0].clone();
    assert_eq!((&inner["annotations"]["a_b"], &inner["metadata"]["attributes"]["a_b"]), (&json!(1), &json!(2)));
}

/// Encodes random trees with random strings. Every document is valid and within the limits, and
/// every span is sent once.
#[test]
fn any_trace_gives_valid_documents_within_the_limits() {
    let source = IdSource::new();
    let strings = ["", "a", "x,y(z)*", "\u{0}\u{1b}\"\\", "é🦀\u{202e}", "AWS.reserved", " ", "..", "日本"];
    for round in 0..60 {
        let random = |below: usize| usize::from(u16::from_ne_bytes(source.bytes())) % below.max(1);
        let text = || {
            let longest = [1, 1, 1, 1, 300, 300, 3000, 20_000][random(8)];
            Value::from(strings[random(strings.len())].repeat(random(longest)))
        };
        let mut trace = user_route();
        for n in 0..random([3, 30, 120][round % 3]) {
            let parent = trace.spans[if round % 5 == 0 { trace.spans.len() - 1 } else { random(trace.spans.len()) }].id;
            let mut child = span("00000000000000aa", None, "child", SpanKind::Internal, n as u64, n as u64);
            child.id = source.span_id();
            child.parent = (random(20) > 0).then_some(parent).or_else(|| Some(source.span_id()));
            child.kind = [SpanKind::Internal, SpanKind::Client, SpanKind::Server][random(3)];
            let Value::String(name) = text() else { unreachable!() };
            child.name = name;
            for n in 0..random(5) {
                let value = match random(6) {
                    0 => Value::Bool(true),
                    1 => Value::Double([0.5, f64::NAN, f64::INFINITY][random(3)]),
                    2 => Value::Map(attributes([("k", text()), ("l", text())])),
                    3 => Value::Int(i64::MIN),
                    _ => text(),
                };
                child
                    .attributes
                    .push(Attribute { key: format!("{}{n}", strings[random(strings.len())]).into(), value });
            }
            if random(4) == 0 {
                child.rare_mut().metadata.push(Metadata { namespace: "n", key: "k", value: text() });
            }
            if random(4) == 0 {
                let attributes = attributes([("exception.message", text()), ("exception.stacktrace", text())]);
                let name = Cow::Borrowed("exception");
                child.rare_mut().events.push(Event { time: 0, name, attributes, dropped_attributes: 0 });
            }
            trace.spans.push(child);
        }
        let payloads = payloads(&trace);
        let mut ids = Vec::new();
        let mut indexed = 0;
        for payload in &payloads {
            assert!(payload.bytes.len() <= MAX_DATAGRAM, "{}", payload.bytes.len());
            let document = document(payload);
            assert_eq!(document["trace_id"], "1-581cf771-a006649127e371903a2de979");
            let before = ids.len();
            check_segment(&document, &mut ids, &mut indexed);
            assert_eq!(ids.len() - before, payload.items);
        }
        assert!(indexed <= 50, "{indexed}");
        assert_eq!(ids.len(), trace.spans.len());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), trace.spans.len());
    }
}

fn check_segment(segment: &Json, ids: &mut Vec<String>, indexed: &mut usize) {
    let id = segment["id"].as_str().unwrap();
    assert_eq!(id.len(), 16);
    ids.push(id.to_owned());
    let name = segment["name"].as_str().unwrap();
    assert!((1..=200).contains(&name.chars().count()), "{name:?}");
    assert!(name.chars().all(|c| c.is_alphanumeric() || " _.:/%&#=+-@".contains(c)), "{name:?}");
    assert!(segment["start_time"].is_f64() && segment["end_time"].is_f64());
    for (key, value) in segment["annotations"].as_object().into_iter().flatten() {
        *indexed += 1;
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !key.is_empty(), "{key:?}");
        assert!(!value.is_null() && !value.is_array() && !value.is_object(), "{value}");
        assert!(value.as_str().is_none_or(|text| text.chars().count() <= 1000));
    }
    for (namespace, value) in segment["metadata"].as_object().into_iter().flatten() {
        assert!(value.is_object() && !namespace.starts_with("AWS."), "{namespace}");
    }
    for subsegment in segment["subsegments"].as_array().into_iter().flatten() {
        check_segment(subsegment, ids, indexed);
    }
}

fn plan(toml: &str, env: Env) -> Result<(Plan, Vec<String>), Message> {
    planned(settings::plan, toml, env)
}

const ON: &str = "[xray]\nenabled = true\n";

#[test]
fn the_daemons_address_is_one_for_both_or_one_of_each() {
    for (text, destination) in [
        ("xray-daemon:2000", "udp+tcp xray-daemon:2000"),
        ("[::1]:2000", "udp+tcp [::1]:2000"),
        ("tcp:a:1 udp:b:2", "udp b:2, tcp a:1"),
        ("udp:[::1]:2 tcp:a:1", "udp [::1]:2, tcp a:1"),
    ] {
        let (plan, _) = plan(ON, Env::from([("AWS_XRAY_DAEMON_ADDRESS", text)])).unwrap();
        assert_eq!((plan.destination.as_str(), plan.state.as_str()), (destination, "on"));
    }
    for text in [
        "daemon",
        "http://daemon:2000",
        "udp:daemon:2000",
        "tcp:a:1 tcp:b:2",
        "a:1 b:2",
        "::1:2000",
        "a:1 b:2 c:3",
        "a:b",
    ] {
        let error = plan(ON, Env::from([("AWS_XRAY_DAEMON_ADDRESS", text)])).err().unwrap().to_string();
        assert!(error.starts_with("AWS_XRAY_DAEMON_ADDRESS=") && error.contains("write host:port"), "{error}");
    }
    assert!(
        plan("", Env::from([("AWS_XRAY_DAEMON_ADDRESS", "nonsense")])).is_ok(),
        "it does not matter while it is off"
    );
}

#[test]
fn the_variables_of_the_sdks_are_honoured() {
    let (off, _) = plan(ON, Env::from([("AWS_XRAY_SDK_ENABLED", "False")])).unwrap();
    assert_eq!((off.state.as_str(), off.sampler.is_none()), ("off", true));
    let (odd, notices) =
        plan(ON, Env::from([("AWS_XRAY_SDK_ENABLED", "maybe"), ("AWS_XRAY_CONTEXT_MISSING", "PANIC")])).unwrap();
    assert_eq!(odd.state.as_str(), "on");
    assert!(notices.iter().any(|notice| notice.contains("AWS_XRAY_SDK_ENABLED=maybe")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("AWS_XRAY_CONTEXT_MISSING=PANIC")), "{notices:?}");
    let (named, _) = plan(ON, Env::from([("AWS_XRAY_TRACING_NAME", "shop")])).unwrap();
    assert!(named.reason.contains("service name shop"), "{}", named.reason);
}

#[test]
fn a_name_that_x_ray_refuses_and_a_rule_that_misses_are_noticed() {
    let (_, notices) = plan(ON, Env::from([("AWS_XRAY_TRACING_NAME", "my (shop)")])).unwrap();
    assert!(notices.iter().any(|notice| notice.contains("\"my shop\"")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("Cruddur") && notice.contains("never applies")), "{notices:?}");
}

#[test]
fn a_host_pattern_shows_an_example_and_one_that_was_not_filled_in_is_refused() {
    let (plan_, notices) = plan(ON, Env::from([("AWS_XRAY_URL", "*4567-abc.gitpod.io")])).unwrap();
    assert!(plan_.reason.contains("hosts like *4567-abc.gitpod.io are filed under their host"), "{}", plan_.reason);
    let expected = r#"a request to "4567-abc.gitpod.io" is filed under "4567-abc.gitpod.io", one to "4567-abc.gitpod.io:443" under "backend-flask""#;
    assert!(notices.iter().any(|notice| notice.contains(expected)), "{notices:?}");
    assert!(
        notices.iter().any(|notice| notice.contains("nor does the local rule Cruddur, which is for \"backend-flask\"")),
        "{notices:?}"
    );
    for pattern in ["*4567-${ID}.gitpod.io*", "*4567-x.{HOST}"] {
        let (plan, notices) = plan(ON, Env::from([("AWS_XRAY_URL", pattern)])).unwrap();
        assert!(!plan.reason.contains("hosts like"), "{}", plan.reason);
        assert!(
            notices.iter().any(|notice| notice.contains("not replaced") && notice.contains(pattern)),
            "{notices:?}"
        );
    }
}

#[test]
fn an_invalid_rule_file_is_reported_and_the_built_in_rule_applies() {
    let (plan_, notices) = plan("[xray]\nenabled = true\nsampling_rule = \"no/such.json\"", Env::default()).unwrap();
    assert!(notices.iter().any(|notice| notice.contains("no/such.json")), "{notices:?}");
    assert!(plan_.sampler.unwrap().describe(0).contains("Cruddur (5 per second, then 10 %)"));
    let (_, notices) = plan("[xray]\nenabled = true\nsampling_rule = \"Cargo.toml\"", Env::default()).unwrap();
    assert!(notices.iter().any(|notice| notice.contains("not a sampling rule")), "{notices:?}");
}

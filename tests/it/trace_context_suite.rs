//! W3C Trace Context, Level 2, tested with the example that the W3C's own suite is run against.
//! Headers and calls are real.
//!
//! The cases have the names of that suite's 41 tests (`SPEC_LEVEL=2 STRICT_LEVEL=2`). They were
//! written from the specification, <https://www.w3.org/TR/trace-context-2/>. `cargo test` builds
//! the example, but `cargo test --test it` does not. Build it first:
//! `cargo build --example trace_context_harness`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Client, Collector, Received, Reply, example};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// The example, in its own process. Dropping this value kills the process and waits for it.
struct Example {
    child: Child,
    addr: SocketAddr,
    /// Held open, because a process that writes into a closed pipe is killed.
    _stderr: BufReader<ChildStderr>,
}

/// One request of a case, and the headers that the resulting call must have.
struct Case {
    /// Name of the suite's test.
    name: &'static str,
    headers: Vec<Sent>,
    expected: Expected,
}

/// A header of a request.
type Sent = (&'static str, String);

enum Expected {
    /// The caller's trace, with this `tracestate`.
    Joined(String),
    /// A new trace, without `tracestate`.
    New,
}

#[test]
fn the_forty_one_cases_of_the_specification_pass() {
    let (example, callee) = (Example::start(), Collector::ok());
    let mut failures = Vec::new();
    let mut names = BTreeSet::new();
    for case in [traceparents(), tracestates(), lists(), forms()].into_iter().flatten() {
        names.insert(case.name);
        let calls = example.calls(&callee, &case.headers, 1);
        if let Err(problem) = check(&calls[0], &case.expected) {
            failures.push(format!("{}: {problem}; sent {:?}", case.name, case.headers));
        }
    }
    for (name, headers, begun_with) in several_calls() {
        names.insert(name);
        let calls = example.calls(&callee, &headers, 3);
        let fields: Vec<_> = calls.iter().map(traceparent).collect();
        let ids: BTreeSet<_> = fields.iter().map(|[_, trace, ..]| trace.as_str()).collect();
        let spans: BTreeSet<_> = fields.iter().map(|[_, _, span, _]| span.as_str()).collect();
        if spans.len() != 3 || ids.len() != 1 || begun_with.is_some_and(|id| !ids.contains(id)) {
            failures.push(format!("{name}: {fields:?}"));
        }
    }
    names.insert("test_propagates_random_flag");
    for (sent, passed_on) in [("02", "02"), ("03", "03"), ("00", "00"), ("01", "01"), ("ff", "03"), ("fc", "00")] {
        let headers = [("traceparent", format!("00-{TRACE}-{SPAN}-{sent}"))];
        let [_, trace, _, flags] = traceparent(&example.calls(&callee, &headers, 1)[0]);
        if (trace.as_str(), flags.as_str()) != (TRACE, passed_on) {
            failures.push(format!("test_propagates_random_flag: {sent} became {trace}, {flags}"));
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n  {}", failures.len(), failures.join("\n  "));
    assert_eq!(names.len(), 41, "{names:#?}");
}

#[test]
fn a_new_trace_says_that_its_id_is_random_and_everybody_can_read_it() {
    let (example, callee) = (Example::start(), Collector::ok());
    let call = &example.calls(&callee, &[], 1)[0];
    let [version, trace, span, flags] = traceparent(call);
    assert_eq!((version.as_str(), flags.as_str()), ("00", "03"));
    let xray = format!("Root=1-{}-{};Parent={span};Sampled=1", &trace[..8], &trace[8..]);
    assert_eq!(call.header("x-amzn-trace-id"), Some(xray.as_str()));
    assert_eq!((call.header("tracestate"), call.header("baggage")), (None, None));
}

#[test]
fn the_longest_baggage_that_everybody_must_pass_on_is_passed_on_untouched() {
    let (example, callee) = (Example::start(), Collector::ok());
    let members: Vec<_> = (0..64).map(|n| format!("key{n:02}={}", "v".repeat(121))).collect();
    let longest = members.join(",") + "9";
    assert_eq!(longest.len(), 8192);
    let call = &example.calls(&callee, &[("baggage", longest.clone())], 1)[0];
    assert_eq!(call.header("baggage"), Some(longest.as_str()));
    let two = [("Baggage", "userId =  alice;p1; p2=x".to_owned()), ("baggage", "b=%20,c=1".to_owned())];
    assert_eq!(example.calls(&callee, &two, 1)[0].header("baggage"), Some("userId =  alice;p1; p2=x,b=%20,c=1"));
    let beyond = [("baggage", format!("{longest},last=1"))];
    let call = &example.calls(&callee, &beyond, 1)[0];
    assert_eq!(call.header("baggage"), Some(longest.as_str()));
}

#[test]
fn it_listens_on_this_machine_only_because_it_calls_any_url() {
    let mut command = Command::new(example("trace_context_harness"));
    command.args(["--listen", "0.0.0.0:0"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the example starts");
    let mut line = String::new();
    let read = BufReader::new(child.stderr.take().expect("stderr is piped")).read_line(&mut line);
    // If the example were listening, it would not end by itself.
    let _ = child.kill();
    let _ = child.wait();
    assert!(read.is_ok() && line.contains("this machine only"), "{line}");
}

#[test]
fn a_post_is_not_sent_twice() {
    let (example, callee) = (Example::start(), Collector::start([Reply::Reset, Reply::json(200, &json!({}))]));
    let body = json!([{ "url": callee.url(), "arguments": [] }]).to_string();
    let answer = Client::connect(example.addr).request("POST", "/test", &[], body.as_bytes());
    assert_eq!((answer.status, callee.requests().len()), (502, 1), "{answer:?}");
}

#[test]
fn it_makes_no_calls_for_a_page_in_a_browser() {
    let (example, callee) = (Example::start(), Collector::ok());
    let body = json!([{ "url": callee.url(), "arguments": [] }]).to_string();
    let headers = [("Origin", "http://elsewhere.test"), ("Content-Type", "text/plain")];
    let answer = Client::connect(example.addr).request("POST", "/test", &headers, body.as_bytes());
    assert_eq!((answer.status, callee.requests().len()), (502, 0), "{answer:?}");
}

fn traceparents() -> Vec<Case> {
    let good = || format!("00-{TRACE}-{SPAN}-01");
    let joined = |name, value: String| Case::new(name, [("traceparent", value)], Expected::Joined(String::new()));
    let new = |name, value: String| Case::new(name, [("traceparent", value)], Expected::New);
    let (zeros, cut_trace, cut_span) = ("0".repeat(32), &TRACE[1..], &SPAN[1..]);
    vec![
        Case::new("test_both_traceparent_and_tracestate_missing", [], Expected::New),
        joined("test_traceparent_included_tracestate_missing", good()),
        Case::new(
            "test_traceparent_duplicated",
            [("traceparent", good()), ("traceparent", format!("00-{}-{SPAN}-01", TRACE.replace('c', "d")))],
            Expected::New,
        ),
        Case::new("test_traceparent_duplicated", [("traceparent", good()), ("Traceparent", good())], Expected::New),
        Case::new("test_traceparent_header_name", [("trace-parent", good())], Expected::New),
        Case::new("test_traceparent_header_name", [("trace.parent", good())], Expected::New),
        Case::new(
            "test_traceparent_header_name_valid_casing",
            [("TraceParent", good())],
            Expected::Joined(String::new()),
        ),
        Case::new(
            "test_traceparent_header_name_valid_casing",
            [("TRACEPARENT", good())],
            Expected::Joined(String::new()),
        ),
        new("test_traceparent_version_0x00", good() + "."),
        new("test_traceparent_version_0x00", good() + "-"),
        new("test_traceparent_version_0x00", good() + "-of-the-future"),
        joined("test_traceparent_version_0xcc", format!("cc-{TRACE}-{SPAN}-01")),
        joined("test_traceparent_version_0xcc", format!("cc-{TRACE}-{SPAN}-01-")),
        joined("test_traceparent_version_0xcc", format!("cc-{TRACE}-{SPAN}-01-of-the-future")),
        new("test_traceparent_version_0xcc", format!("cc-{TRACE}-{SPAN}-01.of-the-future")),
        new("test_traceparent_version_0xff", format!("ff-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_illegal_characters", format!(".0-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_illegal_characters", format!("0.-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_illegal_characters", format!("CC-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_too_long", format!("000-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_too_long", format!("0000-{TRACE}-{SPAN}-01")),
        new("test_traceparent_version_too_short", format!("0-{TRACE}-{SPAN}-01")),
        new("test_traceparent_trace_id_all_zero", format!("00-{zeros}-{SPAN}-01")),
        new("test_traceparent_trace_id_illegal_characters", format!("00-.{cut_trace}-{SPAN}-01")),
        new("test_traceparent_trace_id_illegal_characters", format!("00-{}-{SPAN}-01", TRACE.to_uppercase())),
        new("test_traceparent_trace_id_too_long", format!("00-{TRACE}0-{SPAN}-01")),
        new("test_traceparent_trace_id_too_short", format!("00-{cut_trace}-{SPAN}-01")),
        new("test_traceparent_parent_id_all_zero", format!("00-{TRACE}-{}-01", &zeros[..16])),
        new("test_traceparent_parent_id_illegal_characters", format!("00-{TRACE}-.{cut_span}-01")),
        new("test_traceparent_parent_id_illegal_characters", format!("00-{TRACE}-{}-01", SPAN.to_uppercase())),
        new("test_traceparent_parent_id_too_long", format!("00-{TRACE}-{SPAN}0-01")),
        new("test_traceparent_parent_id_too_short", format!("00-{TRACE}-{cut_span}-01")),
        new("test_traceparent_trace_flags_illegal_characters", format!("00-{TRACE}-{SPAN}-.0")),
        new("test_traceparent_trace_flags_illegal_characters", format!("00-{TRACE}-{SPAN}-0.")),
        new("test_traceparent_trace_flags_illegal_characters", format!("00-{TRACE}-{SPAN}-0A")),
        new("test_traceparent_trace_flags_too_long", format!("00-{TRACE}-{SPAN}-001")),
        new("test_traceparent_trace_flags_too_short", format!("00-{TRACE}-{SPAN}-1")),
        joined("test_traceparent_ows_handling", format!(" {}", good())),
        joined("test_traceparent_ows_handling", format!("\t{}", good())),
        joined("test_traceparent_ows_handling", format!("{} ", good())),
        joined("test_traceparent_ows_handling", format!("\t {} \t", good())),
    ]
}

fn tracestates() -> Vec<Case> {
    let without_parent = |value: &str| {
        Case::new("test_tracestate_included_traceparent_missing", [("tracestate", value.to_owned())], Expected::New)
    };
    vec![
        without_parent("foo=1"),
        without_parent("foo=1,bar=2"),
        kept("test_tracestate_included_traceparent_included", &["foo=1,bar=2"], "foo=1,bar=2"),
        Case::state("test_tracestate_header_name", "trace-state", &["foo=1"], ""),
        Case::state("test_tracestate_header_name", "trace.state", &["foo=1"], ""),
        Case::state("test_tracestate_header_name_valid_casing", "TraceState", &["foo=1"], "foo=1"),
        Case::state("test_tracestate_header_name_valid_casing", "TRACESTATE", &["foo=1"], "foo=1"),
        kept("test_tracestate_empty_header", &[""], ""),
        kept("test_tracestate_empty_header", &["foo=1", ""], "foo=1"),
        kept("test_tracestate_empty_header", &["", "foo=1"], "foo=1"),
        kept("test_tracestate_empty_header", &["foo=1,,bar=2,"], "foo=1,bar=2"),
        kept(
            "test_tracestate_multiple_headers_different_keys",
            &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
            "foo=1,bar=2,rojo=1,congo=2,baz=3",
        ),
        // A sender must not repeat a key. A forwarder may pass the repetition on: the specification
        // leaves that open.
        kept("test_tracestate_duplicated_keys", &["foo=1,foo=1"], "foo=1,foo=1"),
        kept("test_tracestate_duplicated_keys", &["foo=1,foo=2"], "foo=1,foo=2"),
        kept("test_tracestate_duplicated_keys", &["foo=1", "foo=2"], "foo=1,foo=2"),
    ]
}

fn lists() -> Vec<Case> {
    const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();
    let all = [format!("{KEY}={value}"), format!("{KEY}@{KEY}={value}"), format!("0{KEY}={value}")];
    let mut cases: Vec<_> = all.iter().map(|all| kept("test_tracestate_all_allowed_characters", &[all], all)).collect();
    for sent in ["foo=1 \t , \t bar=2", "foo=1\t \t,\t \tbar=2", " foo=1,bar=2", "\tfoo=1,bar=2", "foo=1,bar=2 \t"] {
        cases.push(kept("test_tracestate_ows_handling", &[sent], "foo=1,bar=2"));
    }
    let members = |count| (1..=count).map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>();
    let most = members(32);
    cases.push(kept(
        "test_tracestate_member_count_limit",
        &[&most[..20].join(","), &most[20..].join(",")],
        &most.join(","),
    ));
    cases.push(kept("test_tracestate_member_count_limit", &[&members(33).join(",")], ""));
    cases
}

fn forms() -> Vec<Case> {
    let mut cases = Vec::new();
    for bad in ["foo =1", "FOO=1", "foo.bar=1", "=1", "foo"] {
        cases.push(kept("test_tracestate_key_illegal_characters", &["ok=1", bad], ""));
    }
    // Since June 2026 an @ may stand anywhere except at the beginning.
    for (sent, expected) in [("foo@=1", "foo@=1"), ("@foo=1", ""), ("foo@@bar=1", "foo@@bar=1"), ("a@b@c=1", "a@b@c=1")]
    {
        cases.push(kept("test_tracestate_key_illegal_vendor_format", &[sent], expected));
    }
    let key = |length: usize, at: usize| format!("{}@{}=1", "t".repeat(at), "v".repeat(length - at - 1));
    for good in ["z".repeat(256) + "=1", key(256, 241), key(244, 242), key(17, 1)] {
        cases.push(kept("test_tracestate_key_length_limit", &["foo=1", &good], &format!("foo=1,{good}")));
    }
    for bad in ["z".repeat(257) + "=1", key(257, 241)] {
        cases.push(kept("test_tracestate_key_length_limit", &["foo=1", &bad], ""));
    }
    let longest = format!("foo={}", "v".repeat(256));
    cases.push(kept("test_tracestate_value_illegal_characters", &[&longest], &longest));
    for bad in ["foo=bar=baz", "foo=,bar=3", "foo=a\tb", &format!("{longest}v")] {
        cases.push(kept("test_tracestate_value_illegal_characters", &[bad], ""));
    }
    cases
}

/// Requests that each cause three calls, and the trace that the calls must belong to.
fn several_calls() -> [(&'static str, Vec<Sent>, Option<&'static str>); 3] {
    let parent = |trace: &str| vec![("traceparent", format!("00-{trace}-{SPAN}-01"))];
    [
        ("test_multiple_requests_with_valid_traceparent", parent(TRACE), Some(TRACE)),
        ("test_multiple_requests_without_traceparent", vec![], None),
        ("test_multiple_requests_with_illegal_traceparent", parent(&"0".repeat(32)), None),
    ]
}

fn kept(name: &'static str, sent: &[&str], expected: &str) -> Case {
    Case::state(name, "tracestate", sent, expected)
}

impl Case {
    fn new<const N: usize>(name: &'static str, headers: [Sent; N], expected: Expected) -> Self {
        Self { name, headers: headers.into(), expected }
    }

    /// A valid `traceparent` with these additional headers. `expected` may be empty.
    fn state(name: &'static str, header: &'static str, sent: &[&str], expected: &str) -> Self {
        let mut headers = vec![("traceparent", format!("00-{TRACE}-{SPAN}-00"))];
        headers.extend(sent.iter().map(|value| (header, (*value).to_owned())));
        Self { name, headers, expected: Expected::Joined(expected.to_owned()) }
    }
}

fn check(call: &Received, expected: &Expected) -> Result<(), String> {
    let [version, trace, span, _] = traceparent(call);
    let state: Vec<_> = call.headers.iter().filter(|(name, _)| name == "tracestate").map(|(_, value)| value).collect();
    if version != "00" || span == SPAN || span == "0".repeat(16) || trace == "0".repeat(32) {
        return Err(format!("{version}-{trace}-{span} went out"));
    }
    match expected {
        Expected::Joined(_) if trace != TRACE => Err(format!("another trace: {trace}")),
        Expected::New if trace == TRACE => Err("the caller's trace".to_owned()),
        Expected::Joined(expected) if !expected.is_empty() => {
            if state == [expected] {
                Ok(())
            } else {
                Err(format!("tracestate {state:?}, not {expected:?}"))
            }
        }
        Expected::Joined(_) | Expected::New if state.is_empty() => Ok(()),
        Expected::Joined(_) | Expected::New => Err(format!("tracestate {state:?}, not none")),
    }
}

/// The four fields of a call's only `traceparent`.
#[track_caller]
fn traceparent(call: &Received) -> [String; 4] {
    let values: Vec<_> =
        call.headers.iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value).collect();
    let [value] = values[..] else { panic!("not one traceparent: {values:?}") };
    let fields: Vec<_> = value.split('-').map(ToOwned::to_owned).collect();
    let fields: [String; 4] = fields.try_into().unwrap_or_else(|_| panic!("not four fields: {value}"));
    let is_lower_hex = |field: &String| field.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    assert!(fields.each_ref().map(String::len) == [2, 32, 16, 2] && fields.iter().all(is_lower_hex), "{value}");
    fields
}

impl Example {
    fn start() -> Self {
        let mut command = Command::new(example("trace_context_harness"));
        command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("it says where it listens");
        let addr = line.trim().strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it says {line:?}");
        };
        Self { child, addr, _stderr: stderr }
    }

    /// Sends one request with these headers, which makes the example call `callee` `count` times.
    /// Returns the calls.
    fn calls(&self, callee: &Collector, headers: &[(&str, String)], count: usize) -> Vec<Received> {
        let before = callee.requests().len();
        let wanted: Vec<Value> = (0..count).map(|n| json!({ "url": callee.url(), "arguments": [n] })).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = Value::from(wanted).to_string();
        let answer = Client::connect(self.addr).request("POST", "/test", &headers, body.as_bytes());
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        let calls = callee.requests().split_off(before);
        let bodies: Vec<_> = calls.iter().map(Received::json).collect();
        assert_eq!(bodies, (0..count).map(|n| json!([n])).collect::<Vec<_>>());
        calls
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

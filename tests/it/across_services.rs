//! One trace through two processes, and the result when the other process is dead, slow, or not
//! this program at all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Collector, Connections, Program, Received, Reply, SOON, Setup, XRayDaemon, attribute, scope_name,
};

const NOTIFICATIONS: &str = "/api/activities/notifications";
const TRACE: &str = "4efaaf4d1e8720b39541901950019ee5";
/// Timeouts in milliseconds: one for callees that respond on a busy machine, one for callees that
/// never do.
const PATIENT: u64 = 4000;
const IMPATIENT: u64 = 300;
const SPAN: &str = "53995c3f42cd8ad8";

fn setup(collector: &Collector, daemon: &XRayDaemon) -> Setup {
    Program::setup()
        .toml("[console]\nenabled = false\n[honeycomb]\nenabled = true\n[xray]\nenabled = true\nschedule_delay = 50\n")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", 50)
        .env("AWS_XRAY_DAEMON_ADDRESS", daemon.addr())
        .env("NOTIFICATIONS_TIMEOUT", PATIENT)
}

/// A program that fetches its notifications from `url`.
fn calling(url: &str) -> Setup {
    calling_within(PATIENT, url)
}

fn calling_within(millis: u64, url: &str) -> Setup {
    let setup = Program::setup().toml("[console]\nenabled = false\n");
    setup.env("NOTIFICATIONS_URL", url).env("NOTIFICATIONS_TIMEOUT", millis)
}

fn url(program: &Program) -> String {
    format!("http://{}", program.addr())
}

/// The spans of a trace on a program's page: those of its first request.
fn spans_of(program: &Program, trace_id: &str) -> Vec<Value> {
    let trace = program.get(&format!("/telemetry/traces/{trace_id}")).json();
    trace["requests"][0]["spans"].as_array().unwrap_or_else(|| panic!("no spans: {trace:#}")).clone()
}

fn client_spans(program: &Program, answer: &Answer) -> Vec<Value> {
    spans_of(program, answer.trace_id()).into_iter().filter(|span| span["kind"] == "client").collect()
}

#[test]
fn two_processes_are_one_trace_for_everybody() {
    let (collector, daemon) = (Collector::ok(), XRayDaemon::start());
    let callee = setup(&collector, &daemon).env("OTEL_SERVICE_NAME", "notifications").start();
    let caller = setup(&collector, &daemon).env("NOTIFICATIONS_URL", url(&callee)).start();
    caller.wait_for_stderr(&format!(
        "notifications come from {}{NOTIFICATIONS} (NOTIFICATIONS_URL), within 4000 ms (NOTIFICATIONS_TIMEOUT)",
        url(&callee)
    ));
    let answer = caller.get(NOTIFICATIONS);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()[0]["handle"], "bajoranwatcher");
    let id = answer.trace_id();

    // OTLP: SERVER, INTERNAL and CLIENT spans in the caller; SERVER and INTERNAL spans in the
    // callee, below the caller's CLIENT span.
    let of_trace = |span: &Value| span["traceId"] == id;
    let here = |requests: &[Received]| requests.iter().flat_map(|r| r.spans()).filter(of_trace).count() >= 5;
    collector.wait_for(here, SOON);
    let spans: Vec<_> = collector.spans().into_iter().filter(of_trace).collect();
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let of = |service: &str, kind: u64| {
        let is_it = |span: &&Value| {
            attribute(&span["resource"], "service.name") == Some(&json!(service)) && span["kind"] == kind
        };
        spans.iter().find(is_it).unwrap_or_else(|| panic!("no span of kind {kind} of {service} in {spans:#?}"))
    };
    let (server, internal, client) = (of("backend-flask", 2), of("backend-flask", 1), of("backend-flask", 3));
    let (other_server, other_internal) = (of("notifications", 2), of("notifications", 1));
    assert_eq!(server.get("parentSpanId"), None);
    for (child, parent) in
        [(internal, server), (client, internal), (other_server, client), (other_internal, other_server)]
    {
        assert_eq!(child["parentSpanId"], parent["spanId"], "{child:#}");
    }
    assert_eq!((&client["name"], scope_name(client)), (&json!("GET"), "cruddur.http"));
    assert_eq!(client["status"], json!({}));
    for (key, expected) in [
        ("http.request.method", json!("GET")),
        ("url.full", json!(url(&callee) + NOTIFICATIONS)),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(callee.addr().port().to_string())),
        ("http.response.status_code", json!("200")),
        ("network.protocol.version", json!("1.1")),
    ] {
        assert_eq!(attribute(client, key), Some(&expected), "{key} of {client:#}");
    }
    assert_eq!((attribute(client, "error.type"), attribute(client, "http.request.resend_count")), (None, None));

    // X-Ray: two segments. The parent of the second one is the subsegment of the call.
    daemon.wait_for_datagrams(2, SOON);
    let xray_id = format!("1-{}-{}", &id[..8], &id[8..]);
    let documents: Vec<_> = daemon.documents().into_iter().filter(|document| document["trace_id"] == xray_id).collect();
    let named = |name: &str| documents.iter().find(|document| document["name"] == name).expect("a segment of each");
    let (segment, other_segment) = (named("backend-flask"), named("notifications"));
    let call = &segment["subsegments"][0]["subsegments"][0];
    assert_eq!((&call["name"], &call["namespace"]), (&json!("127.0.0.1"), &json!("remote")), "{segment:#}");
    assert_eq!(call["http"]["request"], json!({ "method": "GET", "url": url(&callee) + NOTIFICATIONS }));
    assert_eq!(call["http"]["response"]["status"], 200);
    assert_eq!(other_segment["parent_id"], call["id"], "{other_segment:#}");
    assert_eq!(call["id"], client["spanId"]);

    // Each page shows its process's part of the trace, and the log lines of both processes have the
    // id.
    let (on_caller, on_callee) = (spans_of(&caller, id), spans_of(&callee, id));
    assert_eq!((on_caller.len(), on_callee.len()), (3, 2), "{on_caller:#?} {on_callee:#?}");
    assert_eq!(on_callee[0]["parent_span_id"], on_caller[2]["span_id"]);
    for (program, span) in [(&caller, server), (&callee, other_server)] {
        program.wait_for_stderr(&format!("trace_id={id} span_id={}", span["spanId"].as_str().unwrap_or_default()));
    }
}

#[test]
fn the_callers_context_goes_through_untouched() {
    let callee = Collector::start([Reply::json(200, &json!([]))]);
    let program = calling(&callee.url()).start();
    let sent = [
        ("traceparent", format!("00-{TRACE}-{SPAN}-03")),
        ("tracestate", "congo=t61, rojo=1".to_owned()),
        ("baggage", "userId =  alice;p, a=%20".to_owned()),
    ];
    let headers = sent.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut client = Client::connect(program.addr());
    let answer = client.request("GET", NOTIFICATIONS, &headers, b"");
    assert_eq!((answer.status, answer.json()), (200, json!([])));
    let call = &callee.requests()[0];
    let span = client_spans(&program, &answer)[0]["span_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!((call.method.as_str(), call.path.as_str()), ("GET", NOTIFICATIONS));
    for (name, expected) in [
        ("traceparent", format!("00-{TRACE}-{span}-03")),
        ("x-amzn-trace-id", format!("Root=1-{}-{};Parent={span};Sampled=1", &TRACE[..8], &TRACE[8..])),
        ("tracestate", "congo=t61,rojo=1".to_owned()),
        ("baggage", "userId =  alice;p, a=%20".to_owned()),
    ] {
        assert_eq!(call.header(name), Some(expected.as_str()), "{name}");
    }
    // A value that cannot be sent in a header does not make the request fail.
    let odd = [("baggage", "a=\u{1},b=2"), ("X-Amzn-Trace-Id", "Root=1-4efaaf4d-1e8720b39541901950019ee5;Odd=\u{1}")];
    assert_eq!(client.request("GET", NOTIFICATIONS, &odd, b"").status, 200);
    assert_eq!(callee.requests()[1].header("baggage"), Some("b=2"));
}

#[test]
fn what_the_propagators_do_not_name_stays_here_and_with_tracing_off_the_callers_own_context_goes_on() {
    let callee = Collector::start([Reply::json(200, &json!([]))]);
    let sent = format!("00-{TRACE}-{SPAN}-01");
    let names = |setup: Setup| {
        let headers = [("traceparent", sent.as_str()), ("baggage", "a=1")];
        let answer = Client::connect(setup.start().addr()).request("GET", NOTIFICATIONS, &headers, b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        let call = callee.requests().pop().expect("a call");
        ["traceparent", "baggage", "x-amzn-trace-id"].map(|name| call.header(name).map(ToOwned::to_owned))
    };
    let none = calling(&callee.url()).env("OTEL_PROPAGATORS", "none");
    assert_eq!(names(none), [None, None, None]);
    let [traceparent, baggage, xray] = names(calling(&callee.url()).env("OTEL_PROPAGATORS", "tracecontext"));
    assert!(traceparent.is_some_and(|value| value.contains(TRACE)) && baggage.is_none() && xray.is_none());
    let [traceparent, baggage, _] = names(calling(&callee.url()).env("OTEL_SDK_DISABLED", "true"));
    assert_eq!((traceparent, baggage), (Some(sent.clone()), Some("a=1".to_owned())));
}

#[test]
fn a_callee_that_fails_is_a_502_and_the_answer_the_span_and_the_log_say_how() {
    let mut huge = vec![b' '; 5 << 20];
    huge.extend_from_slice(b"[]");
    let broken = |bytes: &'static [u8]| Callee::Bytes(bytes);
    let cases = [
        ("connection_refused", "connection refused: CALL; next: start the other instance", Callee::Dead),
        ("timeout", "timed out after 300 ms: CALL; next: find out why", Callee::Script(Reply::Hang)),
        ("timeout", "timed out after 300 ms: CALL; ", Callee::Drips),
        ("not_http", "invalid HTTP response (", Callee::Script(Reply::Garbage)),
        ("connection_closed", "connection closed before a response came: CALL; ", Callee::Script(Reply::Reset)),
        (
            "connection_closed",
            "incomplete response (connection closed within the body): CALL; ",
            broken(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["),
        ),
        (
            "unexpected_body",
            "unexpected JSON in the response (",
            Callee::Script(Reply::text(200, "text/html", "<html>")),
        ),
        (
            "unexpected_body",
            "unexpected JSON in the response (",
            Callee::Script(Reply::json(200, &json!([{ "a": 1 }]))),
        ),
        (
            "unexpected_body",
            "unexpected JSON in the response (",
            Callee::Script(Reply::json(200, &json!("long ".repeat(100_000)))),
        ),
        (
            "too_long",
            "response too long (more than 4194304 bytes): CALL; ",
            Callee::Script(Reply::Answer(200, vec![], huge)),
        ),
        (
            "redirect",
            "HTTP 302 Found, a redirect to http://elsewhere.test/x that is not followed: CALL; ",
            Callee::Script(
                Reply::json(302, &json!({})).with_header("Location", "http://me:secret@elsewhere.test/x?k=secret"),
            ),
        ),
        (
            "404",
            "HTTP 404 Not Found: CALL; next: look for the same trace id",
            Callee::Script(Reply::json(404, &json!({}))),
        ),
        ("304", "HTTP 304 Not Modified: CALL; next: look for", broken(b"HTTP/1.1 304 Not Modified\r\n\r\n")),
        ("503", "HTTP 503 Service Unavailable: CALL; ", Callee::Script(Reply::json(503, &json!({})))),
    ];
    for (kind, says, callee) in cases {
        let running = callee.start();
        let millis = if kind == "timeout" { IMPATIENT } else { PATIENT };
        let program = calling_within(millis, &running.url().replace("http://", "http://me:secret@")).start();
        let since = Instant::now();
        let answer = program.get(NOTIFICATIONS);
        assert!(since.elapsed() < Duration::from_secs(4), "{kind}: {:?}", since.elapsed());
        assert_eq!(answer.status, 502, "{kind}: {answer:?}");
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        let says = says.replace("CALL", &format!("GET {}{NOTIFICATIONS} (NOTIFICATIONS_URL)", running.url()));
        assert!(message.starts_with(&says) && message.contains("; next: "), "{kind}: {message}");
        assert!(message.len() < 1000, "{kind}: {} bytes", message.len());
        assert!(message.contains(&running.url()) && message.contains("(NOTIFICATIONS_URL)"), "{kind}: {message}");
        assert_eq!(answer.json()["trace_id"], answer.trace_id());

        let spans = client_spans(&program, &answer);
        let span = spans.last().unwrap_or_else(|| panic!("{kind}: no CLIENT span"));
        let may_pass = says.starts_with("connection closed before a response came");
        assert_eq!(spans.len(), if may_pass { 2 } else { 1 }, "{kind}: {spans:#?}");
        assert_eq!(span["attributes"]["error.type"], kind, "{span:#}");
        assert_eq!(span["status"], "error", "{span:#}");
        let has_exception = span["events"][0]["name"] == "exception";
        assert_eq!(has_exception, kind.parse::<u16>().is_err(), "{span:#}");
        let has = |key: &str| !span["attributes"][key].is_null();
        let is_cut = ["timeout", "connection_closed", "too_long"].contains(&kind);
        assert_eq!(has("http.response.body.size"), has("http.response.status_code") && !is_cut, "{span:#}");
        program.wait_for_stderr(&format!("{message} trace_id={}", answer.trace_id()));
        // The loop is free again, and the password is shown nowhere.
        assert_eq!(program.get("/health").status, 200);
        let everything =
            program.stderr() + &program.get("/telemetry/status").json().to_string() + &format!("{spans:?}");
        assert!(!everything.contains("secret"), "{kind}: {everything}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    }
}

#[test]
fn a_proxy_that_drips_is_given_no_more_time_than_the_call_and_left_for_good() {
    let (left, has_left) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Connections::serve(listener, move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 ");
        while stream.write_all(b"O").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = left.send(());
    });
    let through =
        || calling_within(IMPATIENT, "http://callee.test").env("ALL_PROXY", format!("http://{}", proxy.addr()));
    let program = through().start();
    for _ in 0..2 {
        let since = Instant::now();
        let answer = program.get(NOTIFICATIONS);
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        let says = format!(" through the proxy {}; next: ", proxy.addr());
        assert!(message.starts_with("timed out after 300 ms: GET "), "{answer:?}");
        assert!(answer.status == 502 && message.contains(&says), "{answer:?}");
        has_left.recv_timeout(SOON).expect("the connection to the proxy is closed");
    }
    let past_it = through().env("NO_PROXY", "callee.test").start();
    past_it.wait_for_stderr("callee.test/api/activities/notifications (NOTIFICATIONS_URL), within");
}

#[test]
fn a_failed_call_is_a_remote_fault_with_its_cause_in_x_ray() {
    let (collector, daemon) = (Collector::ok(), XRayDaemon::start());
    for (callee, fault, error) in
        [(Callee::Dead, true, false), (Callee::Script(Reply::json(404, &json!({}))), false, true)]
    {
        let running = callee.start();
        let program = setup(&collector, &daemon).env("NOTIFICATIONS_URL", running.url()).start();
        let answer = program.get(NOTIFICATIONS);
        let segment = daemon.wait_for_trace(answer.trace_id(), SOON);
        let call = &segment["subsegments"][0]["subsegments"][0];
        assert_eq!(call["namespace"], "remote", "{segment:#}");
        assert_eq!((call["fault"] == true, call["error"] == true), (fault, error), "{segment:#}");
        assert_eq!(call["cause"]["exceptions"][0]["message"].is_string(), fault, "{segment:#}");
        assert_eq!((&segment["fault"], &segment["http"]["response"]["status"]), (&json!(true), &json!(502)));
    }
}

#[test]
fn a_connection_that_breaks_before_an_answer_is_tried_once_more_with_a_span_of_its_own() {
    let callee = Collector::start([Reply::Reset, Reply::json(200, &json!([]))]);
    let program = calling(&callee.url()).start();
    let answer = program.get(NOTIFICATIONS);
    assert_eq!(answer.status, 200, "{answer:?}");
    let spans = client_spans(&program, &answer);
    let [first, second] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((&first["status"], &second["status"]), (&json!("error"), &json!("unset")));
    assert_eq!(first["attributes"]["error.type"], "connection_closed");
    assert_eq!(second["attributes"]["http.request.resend_count"], 1);
    assert_eq!(first["parent_span_id"], second["parent_span_id"]);
    let calls = callee.requests();
    let sent: Vec<_> = calls.iter().filter_map(|call| call.header("traceparent")?.split('-').nth(2)).collect();
    assert_eq!(sent, [&first["span_id"], &second["span_id"]]);
    program.wait_for_stderr("; the call is retried once");
}

#[test]
fn both_tries_together_have_the_time_of_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let calls = AtomicUsize::new(0);
    let callee = Connections::serve(listener, move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(1500));
            let _ = stream.shutdown(std::net::Shutdown::Both);
        } else {
            let _ = stream.read(&mut [0; 1]);
        }
    });
    let program = calling_within(2000, &format!("http://{}", callee.addr())).start();
    let since = Instant::now();
    let answer = program.get(NOTIFICATIONS);
    let took = since.elapsed();
    let spans = client_spans(&program, &answer);
    let kinds: Vec<_> = spans.iter().map(|span| &span["attributes"]["error.type"]).collect();
    assert_eq!((answer.status, kinds), (502, vec![&json!("connection_closed"), &json!("timeout")]));
    assert!(took < Duration::from_millis(3200), "{took:?}");
}

#[test]
fn one_that_would_ask_itself_says_so_and_answers_from_its_own_data() {
    let addr = free_addr();
    for (listen, host) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("0.0.0.0", "127.0.0.1")] {
        let program = calling(&format!("http://{host}:{}", addr.port()))
            .env("CRUDDUR_LISTEN", format!("{listen}:{}", addr.port()));
        let program = program.start();
        program.wait_for_stderr("is this instance itself, so it uses its own notifications; next: give the address");
        let answer = Client::connect(addr).get(NOTIFICATIONS);
        assert_eq!((answer.status, &answer.json()[0]["handle"]), (200, &json!("bajoranwatcher")));
    }
}

#[test]
fn one_that_asks_itself_by_another_name_ends_in_a_502_and_goes_in_no_circles() {
    let addr = free_addr();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let detour = Connections::serve(listener, move |stream| forward(stream, addr));
    let url = format!("http://{}", detour.addr());
    let program = calling_within(IMPATIENT, &url).env("CRUDDUR_LISTEN", addr).start();
    let answer = program.get(NOTIFICATIONS);
    assert_eq!(answer.status, 502, "{answer:?}");
    program.wait_for_stderr("request loop: the request has passed this instance already");
    let trace = program.get(&format!("/telemetry/traces/{}", answer.trace_id())).json();
    assert_eq!(trace["requests"].as_array().map(Vec::len), Some(2), "{trace:#}");
    let spans = trace["requests"].as_array().into_iter().flatten().flat_map(|it| it["spans"].as_array()).flatten();
    let told: Vec<_> = spans.filter_map(|span| span["events"][0]["attributes"]["exception.message"].as_str()).collect();
    assert!(told.iter().any(|message| message.contains("has passed this instance already")), "{trace:#}");
}

#[test]
fn two_that_ask_one_another_end_in_a_502_and_go_in_no_circles() {
    let (a, b) = (free_addr(), free_addr());
    let start = |own: SocketAddr, other: SocketAddr| {
        calling_within(IMPATIENT, &format!("http://{other}")).env("CRUDDUR_LISTEN", own).start()
    };
    let (first, second) = (start(a, b), start(b, a));
    let answer = first.get(NOTIFICATIONS);
    assert_eq!(answer.status, 502, "{answer:?}");
    first.wait_for_stderr("request loop: the request has passed this instance already");
    let requests = |program: &Program| {
        let trace = program.get(&format!("/telemetry/traces/{}", answer.trace_id())).json();
        trace["requests"].as_array().map(Vec::len)
    };
    assert_eq!((requests(&first), requests(&second)), (Some(2), Some(1)));
}

#[test]
fn what_has_come_through_more_than_sixteen_instances_goes_no_further() {
    let callee = Collector::start([Reply::json(200, &json!([]))]);
    let program = calling(&callee.url()).start();
    let mut client = Client::connect(program.addr());
    for (hops, status) in [(16, 200), (17, 502)] {
        let via: Vec<_> = (0..hops).map(|n| format!("1.1 cruddur-{n:016x}")).collect();
        let answer = client.request("GET", NOTIFICATIONS, &[("Via", via.join(", ").as_str())], b"");
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(callee.requests().len(), 1);
}

#[test]
fn what_is_no_url_is_refused_on_the_command_line_and_passed_over_in_the_environment() {
    let exit = Program::run_to_end(&["--notifications-url", "localhost:4568"], &[], None);
    assert_eq!(exit.status.code(), Some(2));
    let line = "invalid URL: \"localhost:4568\" (--notifications-url); next: write it like http://host:port";
    assert!(exit.stderr.contains(line), "{}", exit.stderr);
    let program = calling("localhost:4568").start();
    program.wait_for_stderr("warning: invalid URL: \"localhost:4568\" (NOTIFICATIONS_URL); the variable is ignored");
    assert_eq!(program.get(NOTIFICATIONS).status, 200);
}

/// The program at the other instance's address.
enum Callee {
    Dead,
    Script(Reply),
    /// Writes these bytes and closes the connection.
    Bytes(&'static [u8]),
    /// Sends one byte of a valid response every 20 ms, without end.
    Drips,
}

enum Running {
    Nothing(SocketAddr),
    Collector(Collector),
    Other(Connections),
}

impl Callee {
    fn start(self) -> Running {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        match self {
            Self::Dead => Running::Nothing(XRayDaemon::free_addr()),
            Self::Script(reply) => Running::Collector(Collector::start([reply])),
            Self::Bytes(bytes) => Running::Other(Connections::serve(listener(), move |mut stream| {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(bytes);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            })),
            Self::Drips => Running::Other(Connections::serve(listener(), |mut stream| {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[");
                while stream.write_all(b" ").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            })),
        }
    }
}

impl Running {
    fn url(&self) -> String {
        match self {
            Self::Nothing(addr) => format!("http://{addr}"),
            Self::Collector(collector) => collector.url(),
            Self::Other(connections) => format!("http://{}", connections.addr()),
        }
    }
}

/// An address that is free now. Its port is below those that the system assigns by itself.
fn free_addr() -> SocketAddr {
    XRayDaemon::free_addr()
}

/// Forwards one connection to `addr`.
fn forward(stream: &TcpStream, addr: SocketAddr) {
    let Ok(other) = TcpStream::connect(addr) else { return };
    let (mut from, mut to) = (stream, &other);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &other, &mut &*stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        let _ = io::copy(&mut from, &mut to);
        let _ = other.shutdown(std::net::Shutdown::Both);
    });
}

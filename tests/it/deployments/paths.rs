//! Kind 3: paths as browsers, proxies and other servers write them.

use serde_json::Value;

use super::HOME;
use crate::support::told::start;
use crate::support::{Answer, Client, Program, SOON, XRayDaemon, wait_until};

/// Request target, status, route of the span, and `url.path`.
const TARGETS: &[(&str, u16, &str, &str)] = &[
    ("/api/activities/@andrewbrown", 200, "GET /api/activities/@{handle}", "/api/activities/@andrewbrown"),
    ("/api/activities/%40andrewbrown", 200, "GET /api/activities/@{handle}", "/api/activities/%40andrewbrown"),
    ("/api/messages/%40andrewbrown", 200, "GET /api/messages/@{handle}", "/api/messages/%40andrewbrown"),
    ("/api/activities/ho%6De", 200, "GET /api/activities/home", "/api/activities/ho%6De"),
    ("/%61pi/activities/home", 200, "GET /api/activities/home", "/%61pi/activities/home"),
    ("/api/activities/search?term=%40", 200, "GET /api/activities/search", "/api/activities/search"),
    ("/api/activities/%2540andrewbrown", 404, "GET /api/activities/{uuid}", "/api/activities/%2540andrewbrown"),
    ("/api/activities/a%2Fb", 404, "GET /api/activities/{uuid}", "/api/activities/a%2Fb"),
    ("/api/activities%2Fhome", 404, "GET", "/api/activities%2Fhome"),
    ("/api/activities/%zz", 404, "GET /api/activities/{uuid}", "/api/activities/%zz"),
    ("/api/activities/%00", 404, "GET /api/activities/{uuid}", "/api/activities/%00"),
    ("http://cruddur.test/api/activities/home", 200, "GET /api/activities/home", HOME),
    ("HTTP://cruddur.test:8080/api/activities/home?a=b", 200, "GET /api/activities/home", HOME),
    ("http://cruddur.test/api/activities/%40a", 200, "GET /api/activities/@{handle}", "/api/activities/%40a"),
    ("https://cruddur.test/nothing", 404, "GET", "/nothing"),
    ("api/activities/home", 400, "GET", "api/activities/home"),
    ("*", 400, "GET", "*"),
    ("http://user:secret@cruddur.test/api/activities/home", 400, "GET /api/activities/home", HOME),
    ("ftp://cruddur.test/api/activities/home", 400, "GET", "ftp://cruddur.test/api/activities/home"),
];

fn span_of(program: &Program, answer: &Answer) -> Value {
    let mut trace = Value::Null;
    let found = wait_until(SOON, || {
        trace = program.get(&format!("/telemetry/traces/{}", answer.trace_id())).json();
        trace["requests"][0]["spans"].is_array()
    });
    assert!(found, "{trace:#}");
    trace["requests"][0]["spans"][0].clone()
}

#[test]
fn t38_a_path_is_routed_when_it_is_decoded_and_recorded_as_it_came() {
    let program = start("", &[]);
    for (target, status, name, path) in TARGETS {
        let answer = Client::connect(program.addr()).request("GET", target, &[], b"");
        assert_eq!(answer.status, *status, "{target}: {answer:?}");
        let span = span_of(&program, &answer).to_string();
        assert!(span.contains(&format!("\"name\":\"{name}\"")), "{target}: {span}");
        assert!(span.contains(&format!("\"{path}\"")), "{target}: {span}");
        assert!(!span.contains("secret"), "{span}");
    }
}

/// What `encodeURIComponent` writes in the front end: `@` becomes `%40`.
#[test]
fn t38_the_front_end_may_encode_a_handle() {
    let program = start("", &[]);
    let mut client = Client::connect(program.addr());
    let origin = ("Origin", "http://localhost:3000");
    for (encoded, plain) in [
        ("/api/activities/%40andrewbrown", "/api/activities/@andrewbrown"),
        ("/%61pi/activities/%40andrewbrown", "/api/activities/@andrewbrown"),
        ("/api/messages/%40andrewbrown", "/api/messages/@andrewbrown"),
    ] {
        let preflight = client.request("OPTIONS", encoded, &[origin, ("Access-Control-Request-Method", "GET")], b"");
        assert_eq!(preflight.header("access-control-allow-origin"), Some("http://localhost:3000"), "{encoded}");
        let answers = [encoded, plain].map(|path| client.request("GET", path, &[origin], b""));
        let handles = answers.each_ref().map(|answer| answer.json()[0]["handle"].clone());
        assert_eq!(handles[0], handles[1], "{encoded}");
        assert_eq!(answers[0].header("access-control-allow-origin"), Some("http://localhost:3000"), "{encoded}");
    }
}

#[test]
fn t38_x_ray_keeps_the_spelling_of_the_path() {
    let daemon = XRayDaemon::without_tcp();
    let address = daemon.addr().to_string();
    let program = start("[xray]\nenabled = true\nschedule_delay = 50\n", &[("AWS_XRAY_DAEMON_ADDRESS", &address)]);
    for (target, url) in [
        ("/api/activities/%40andrewbrown?x=1", "/api/activities/%40andrewbrown"),
        ("http://cruddur.test:99/api/activities/%40a", "http://cruddur.test:99/api/activities/%40a"),
    ] {
        let trace = ("X-Amzn-Trace-Id", "Sampled=1");
        let answer = Client::connect(program.addr()).request("GET", target, &[trace], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        let segment = daemon.wait_for_trace(answer.trace_id(), SOON);
        let shown = segment["http"]["request"]["url"].as_str().unwrap_or_default();
        assert!(shown.ends_with(url), "{target}: {shown}");
    }
}

/// The absolute form names the host. A foreign name is foreign in this form too.
#[test]
fn t38_the_page_is_shown_to_this_machine_only_in_the_absolute_form_too() {
    let program = start("", &[]);
    for (target, host, status) in [
        ("http://localhost/telemetry/status", "evil.test", 200),
        ("http://evil.test/telemetry/status", "localhost", 403),
        ("/%74elemetry/status", "evil.test", 403),
        ("/telemetry/status", "localhost", 200),
    ] {
        let answer = Client::connect(program.addr()).request("GET", target, &[("Host", host)], b"");
        assert_eq!(answer.status, status, "{target} {host}");
    }
}

/// tiny_http closes the connection without an answer. A cookie of another program does that.
#[test]
fn t41_a_head_with_a_byte_above_7f_ends_its_connection_and_no_other() {
    let program = start("", &[]);
    for head in [
        "GET /api/activities/home HTTP/1.1\r\nHost: localhost\r\nCookie: name=café\r\n\r\n",
        "GET /api/activities/café HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = Client::connect(program.addr());
        client.send_raw(head.as_bytes());
        assert!(client.try_read_answer().is_err(), "tiny_http answers now; README says otherwise");
        assert_eq!(program.get(HOME).status, 200);
    }
}

/// A body may begin with a byte order mark. One in UTF-16 is named.
#[test]
fn t37_a_body_may_begin_with_a_byte_order_mark_and_utf_16_is_named() {
    let program = start("", &[]);
    let mut client = Client::connect(program.addr());
    let body = r#"{"message":"hi","ttl":"1-day"}"#;
    assert_eq!(client.post("/api/activities", format!("\u{feff}{body}")).status, 200);
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(body.bytes().flat_map(|byte| [byte, 0])).collect();
    let answer = client.post("/api/activities", utf16);
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answer.status, 400);
    assert!(message.starts_with("invalid JSON in the body: UTF-16 instead of UTF-8"), "{message}");
}

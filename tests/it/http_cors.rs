//! CORS: the course's front end may call the API, with trace headers, and other origins may not. A
//! browser does not mistake an error for a CORS failure.

use crate::support::{Answer, Client, Program};

const HOME: &str = "/api/activities/home";
const FRONTEND: &str = "https://3000-cruddur.example.test";
const BACKEND: &str = "https://4567-cruddur.example.test";
const DEFAULT: &str = "http://localhost:3000";
const FOREIGN: &str = "https://evil.example.test";

fn program() -> Program {
    Program::setup().env("FRONTEND_URL", FRONTEND).env("BACKEND_URL", BACKEND).start()
}

fn get(client: &mut Client, path: &str, origin: &str) -> Answer {
    client.request("GET", path, &[("Origin", origin)], b"")
}

fn post(client: &mut Client, path: &str, origin: &str, body: &str) -> Answer {
    client.request("POST", path, &[("Origin", origin), ("Content-Type", "application/json")], body.as_bytes())
}

fn preflight(client: &mut Client, path: &str, origin: &str, method: &str) -> Answer {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "content-type,traceparent"),
    ];
    client.request("OPTIONS", path, &headers, b"")
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[track_caller]
fn assert_allowed(answer: &Answer, origin: &str) {
    assert_eq!(allowed_origin(answer), Some(origin), "{answer:?}");
    assert!(answer.list("vary").contains(&"origin".to_owned()), "{answer:?}");
    let exposed = ["link", "location", "traceparent", "tracestate", "x-amzn-trace-id"];
    assert_eq!(answer.list("access-control-expose-headers"), exposed, "{answer:?}");
}

#[test]
fn an_allowed_origin_is_echoed_and_sees_the_trace_headers() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for origin in [FRONTEND, BACKEND] {
        assert_allowed(&get(&mut client, HOME, origin), origin);
    }
    let head = client.request("HEAD", HOME, &[("Origin", FRONTEND)], b"");
    assert_allowed(&head, FRONTEND);
}

#[test]
fn get_and_post_obey_the_same_rule() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for (path, body) in [
        ("/api/activities", r#"{"message":"m","ttl":"1-day"}"#),
        ("/api/messages", r#"{"message":"m","user_receiver_handle":"b"}"#),
    ] {
        let answer = post(&mut client, path, FRONTEND, body);
        assert_eq!(answer.status, 200);
        assert_allowed(&answer, FRONTEND);
        assert_eq!(allowed_origin(&post(&mut client, path, FOREIGN, body)), None);
    }
}

#[test]
fn a_foreign_origin_gets_an_answer_that_its_browser_will_not_show() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for origin in
        [FOREIGN, "null", DEFAULT, "https://3000-cruddur.example.test.evil.test", "http://3000-cruddur.example.test"]
    {
        let answer = get(&mut client, HOME, origin);
        assert_eq!(answer.status, 200, "{origin}");
        assert_eq!(allowed_origin(&answer), None, "{origin}");
    }
}

#[test]
fn without_an_origin_the_front_end_is_named() {
    let program = program();
    assert_eq!(allowed_origin(&program.get(HOME)), Some(FRONTEND));
}

#[test]
fn unset_urls_mean_localhost_3000() {
    for setup in [Program::setup(), Program::setup().env("FRONTEND_URL", "").env("BACKEND_URL", "")] {
        let program = setup.start();
        let mut client = Client::connect(program.addr());
        assert_allowed(&get(&mut client, HOME, DEFAULT), DEFAULT);
        assert_eq!(allowed_origin(&client.get(HOME)), Some(DEFAULT));
        assert_eq!(allowed_origin(&get(&mut client, HOME, FOREIGN)), None);
    }
}

#[test]
fn a_preflight_allows_trace_headers_on_every_route() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for (path, method) in
        [(HOME, "GET"), ("/api/activities/@a", "GET"), ("/api/activities", "POST"), ("/api/messages", "POST")]
    {
        let answer = preflight(&mut client, path, FRONTEND, method);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(allowed_origin(&answer), Some(FRONTEND), "{path}");
        assert!(answer.list("vary").contains(&"origin".to_owned()), "{path}: {answer:?}");
        let headers = ["baggage", "content-type", "if-modified-since", "traceparent", "tracestate", "x-amzn-trace-id"];
        assert_eq!(answer.list("access-control-allow-headers"), headers, "{path}");
        assert_eq!(answer.list("access-control-allow-methods"), ["get", "head", "options", "post"], "{path}");
    }
}

#[test]
fn a_preflight_of_a_foreign_origin_allows_nothing() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for (path, method) in [(HOME, "GET"), ("/api/activities", "POST"), ("/api/messages", "POST")] {
        assert_eq!(allowed_origin(&preflight(&mut client, path, FOREIGN, method)), None, "{path}");
    }
}

#[test]
fn errors_carry_the_headers_too() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for (path, status) in
        [("/api/fail", 500), ("/api/fail?how=error", 500), ("/api/nothing", 404), ("/api/activities", 405)]
    {
        let answer = get(&mut client, path, FRONTEND);
        assert_eq!(answer.status, status, "{path}");
        assert_allowed(&answer, FRONTEND);
    }
    for (body, status) in [("{", 400), ("{}", 400), (r#"{"message":"","ttl":"1-day"}"#, 422)] {
        let answer = post(&mut client, "/api/activities", FRONTEND, body);
        assert_eq!(answer.status, status, "{body}");
        assert_allowed(&answer, FRONTEND);
    }
    let too_long = " ".repeat(20_000);
    let answer = post(&mut Client::connect(program.addr()), "/api/activities", FRONTEND, &too_long);
    assert_eq!(answer.status, 413);
    assert_allowed(&answer, FRONTEND);
}

#[test]
fn only_the_api_is_for_other_origins() {
    let program = program();
    let mut client = Client::connect(program.addr());
    for path in ["/health", "/telemetry/status", "/telemetry/traces"] {
        assert_eq!(allowed_origin(&get(&mut client, path, FRONTEND)), None, "{path}");
    }
}

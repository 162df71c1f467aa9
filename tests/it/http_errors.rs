//! Every mistake of a client has its own status and a message, and the server goes on.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Program, SOON, wait_until};

const HOME: &str = "/api/activities/home";
const UNKNOWN_UUID: &str = "00000000-0000-4000-8000-000000000000";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Checks that an error is JSON with a message, and returns the message.
#[track_caller]
fn assert_error(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(!message.is_empty(), "{answer:?}");
    message
}

/// Sends these bytes on a connection of their own. After a broken head the rest of a connection
/// cannot be read as requests.
fn send(program: &Program, request: &str) -> Answer {
    let mut client = Client::connect(program.addr());
    client.send_raw(request.as_bytes());
    client.read_answer()
}

#[track_caller]
fn assert_still_there(program: &Program) {
    let answer = program.get("/health");
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ok" })));
}

fn uuid_at_home(client: &mut Client) -> String {
    client.get(HOME).json()[0]["uuid"].as_str().expect("a uuid").to_owned()
}

#[test]
fn a_value_that_is_not_allowed_is_422_with_an_array_of_one_code() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let reply = format!("/api/activities/{}/reply", uuid_at_home(&mut client));
    let long = |count: usize| "x".repeat(count);
    let cases = [
        ("/api/activities", json!({ "message": "m", "ttl": "" }), "ttl_blank"),
        ("/api/activities", json!({ "message": "m", "ttl": "2-days" }), "ttl_blank"),
        ("/api/activities", json!({ "message": "", "ttl": "1-day" }), "message_blank"),
        ("/api/activities", json!({ "message": long(281), "ttl": "1-day" }), "message_exceed_max_chars"),
        (&reply, json!({ "message": "" }), "message_blank"),
        (&reply, json!({ "message": long(1025) }), "message_exceed_max_chars"),
        ("/api/messages", json!({ "message": "m", "user_receiver_handle": "" }), "user_receiver_handle_blank"),
        ("/api/messages", json!({ "message": "", "user_receiver_handle": "b" }), "message_blank"),
        ("/api/messages", json!({ "message": long(1025), "user_receiver_handle": "b" }), "message_exceed_max_chars"),
        // The last check that fails determines the code.
        ("/api/activities", json!({ "message": "", "ttl": "2-days" }), "message_blank"),
        ("/api/activities", json!({ "message": long(281), "ttl": "" }), "message_exceed_max_chars"),
        ("/api/messages", json!({ "message": "", "user_receiver_handle": "" }), "message_blank"),
    ];
    for (path, body, code) in cases {
        let answer = client.post(path, body.to_string());
        assert_eq!((answer.status, answer.json()), (422, json!([code])), "{path} {body}");
    }
    for path in ["/api/activities/search", "/api/activities/search?term=", "/api/activities/search?other=aws"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.json()), (422, json!(["search_term_blank"])), "{path}");
    }
}

#[test]
fn the_longest_allowed_values_are_allowed() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let reply = format!("/api/activities/{}/reply", uuid_at_home(&mut client));
    for (path, body) in [
        ("/api/activities", json!({ "message": "x".repeat(280), "ttl": "1-day" })),
        (reply.as_str(), json!({ "message": "x".repeat(1024) })),
        ("/api/messages", json!({ "message": "x".repeat(1024), "user_receiver_handle": "b" })),
    ] {
        assert_eq!(client.post(path, body.to_string()).status, 200, "{path}");
    }
}

#[test]
fn a_missing_key_or_a_wrong_type_is_400_and_named() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let reply = format!("/api/activities/{}/reply", uuid_at_home(&mut client));
    let cases = [
        ("/api/activities", json!({ "ttl": "1-day" }), "message"),
        ("/api/activities", json!({ "message": "m" }), "ttl"),
        ("/api/activities", json!({ "message": 7, "ttl": "1-day" }), "message"),
        ("/api/activities", json!({ "message": null, "ttl": "1-day" }), "message"),
        ("/api/activities", json!({ "message": "m", "ttl": ["1-day"] }), "ttl"),
        (&reply, json!({}), "message"),
        (&reply, json!({ "message": true }), "message"),
        ("/api/messages", json!({ "message": "m" }), "user_receiver_handle"),
        ("/api/messages", json!({ "user_receiver_handle": "b" }), "message"),
        ("/api/messages", json!({ "message": {}, "user_receiver_handle": "b" }), "message"),
    ];
    for (path, body, named) in cases {
        let message = assert_error(&client.post(path, body.to_string()), 400);
        assert!(message.contains(named), "{path} {body}: {message}");
    }
}

#[test]
fn a_body_that_is_not_a_json_object_is_400() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for body in ["", "{", "[]", r#"["message"]"#, "null", "7", r#"{"message":"m","ttl":"1-day"} x"#, "{'message':1}"] {
        assert_error(&client.post("/api/activities", body), 400);
    }
    assert_error(&client.post("/api/activities", b"{\"message\":\"\xff\",\"ttl\":\"1-day\"}"), 400);
}

#[test]
fn a_body_of_another_content_type_is_400() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let body = br#"{"message":"m","ttl":"1-day"}"#;
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp"] {
        let message = assert_error(&client.request("POST", "/api/activities", &[("Content-Type", kind)], body), 400);
        assert!(message.contains("application/json"), "{message}");
    }
    assert_error(&client.request("POST", "/api/activities", &[], body), 400);
}

#[test]
fn json_may_name_utf_8_and_nothing_else() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let body = br#"{"message":"m","ttl":"1-day"}"#;
    for kind in
        ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/json; charset=\"utf-8\""]
    {
        assert_eq!(client.request("POST", "/api/activities", &[("Content-Type", kind)], body).status, 200, "{kind}");
    }
    let latin = [("Content-Type", "application/json; charset=iso-8859-1")];
    assert_error(&client.request("POST", "/api/activities", &latin, body), 415);
    assert_error(&client.request("POST", "/api/activities", &[JSON, ("Content-Encoding", "gzip")], body), 415);
}

#[test]
fn what_is_not_there_is_404() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for path in [
        "/api",
        "/api/nothing",
        "/api/activities/home/",
        "/api/message_groups/",
        "/api/activities/home2",
        "/health/",
        "/telemetry/nothing",
        "//api/activities/home",
    ] {
        assert_error(&client.get(path), 404);
    }
    assert_error(&client.get(&format!("/api/activities/{UNKNOWN_UUID}")), 404);
}

#[test]
fn a_method_that_is_not_allowed_is_405_and_told_which_are() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let reply = format!("/api/activities/{UNKNOWN_UUID}/reply");
    for (method, path, allowed) in [
        ("POST", HOME, ["get", "head", "options"].as_slice()),
        ("DELETE", HOME, &["get", "head", "options"]),
        ("PUT", "/api/activities/@andrewbrown", &["get", "head", "options"]),
        ("PATCH", "/api/message_groups", &["get", "head", "options"]),
        ("GET", "/api/activities", &["options", "post"]),
        ("HEAD", "/api/messages", &["options", "post"]),
        ("GET", &reply, &["options", "post"]),
    ] {
        let answer = client.request(method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        assert_eq!(answer.list("allow"), allowed, "{method} {path}");
        if method != "HEAD" {
            assert_error(&answer, 405);
        }
    }
}

#[test]
fn a_body_of_unknown_length_is_411() {
    let program = Program::start();
    let head = "POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    assert_error(&send(&program, &format!("{head}\r\n")), 411);
    assert_error(&send(&program, &format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")), 411);
    assert_error(
        &send(&program, &format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        411,
    );
    assert_still_there(&program);
}

#[test]
fn sixteen_kilobytes_are_taken_and_one_byte_more_is_413() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let body = format!("{:<16384}", r#"{"message":"m","ttl":"1-day"}"#);
    assert_eq!(client.post("/api/activities", body).status, 200);
    let body = format!("{:<16385}", r#"{"message":"m","ttl":"1-day"}"#);
    assert_error(&Client::connect(program.addr()).post("/api/activities", body), 413);
    assert_still_there(&program);
}

#[test]
fn a_huge_content_length_leaves_the_server_alive() {
    let program = Program::start();
    for length in ["20000", "1073741825", "999999999999999", "9223372036854775807"] {
        let request = format!(
            "POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{}}"
        );
        assert_error(&send(&program, &request), 413);
        assert_still_there(&program);
    }
    // Lengths around the largest u64. The server may call them too large or invalid; both are
    // correct.
    for length in ["18446744073709551615", "18446744073709551616", "99999999999999999999999"] {
        let request = format!("POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let answer = send(&program, &request);
        assert!(answer.status == 400 || answer.status == 413, "{length}: {answer:?}");
        assert_still_there(&program);
    }
    assert!(program.rss_kb() < 200_000, "{} kB", program.rss_kb());
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let program = Program::start();
    let many = |count: usize| {
        let more: String = (1..count).map(|number| format!("X-{number}: y\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nHost: x\r\n{more}\r\n")
    };
    assert_eq!(send(&program, &many(64)).status, 200);
    assert_error(&send(&program, &many(65)), 431);
    let long = |size: usize| format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "y".repeat(size));
    assert_eq!(send(&program, &long(15 * 1024)).status, 200);
    assert_error(&send(&program, &long(16 * 1024 + 1)), 431);
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(17 * 1024));
    assert_error(&send(&program, &path), 431);
    assert_still_there(&program);
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_400() {
    let program = Program::start();
    let post = |lengths: &str| {
        format!("POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lengths}\r\n{{}}x")
    };
    for request in [
        "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
        "GET http://x@elsewhere.test/health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET http:///health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET http://elsewhere.test/health HTTP/1.1\r\n\r\n".to_owned(),
        "GET http://elsewhere.test/health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
        post("Content-Length: +3\r\n"),
        post("Content-Length: -3\r\n"),
        post("Content-Length: 0x3\r\n"),
        post("Content-Length: 3, 3\r\n"),
        post("Content-Length: 3\r\nContent-Length: 3\r\n"),
        post("Content-Length: 3\r\nContent-Length: 2\r\n"),
    ] {
        let answer = send(&program, &request);
        assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
        assert_error(&answer, 400);
        assert_still_there(&program);
    }
}

#[test]
fn a_panic_in_a_handler_is_500_with_the_trace_id_and_the_server_goes_on() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for path in ["/api/fail", "/api/fail?how=error", "/api/fail"] {
        let answer = client.get(path);
        assert_error(&answer, 500);
        assert_eq!(answer.json()["trace_id"], answer.trace_id(), "{path}");
        program.wait_for_stderr(&format!("500 Internal Server Error trace_id={}", answer.trace_id()));
        assert_eq!(client.get(HOME).status, 200, "the same connection goes on");
    }
    assert_still_there(&program);
}

#[test]
fn the_level_of_an_access_line_is_that_of_its_status() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for (path, level, status) in
        [(HOME, "INFO", "200 OK"), ("/api/x", "WARN", "404 Not Found"), ("/api/fail", "ERROR", "500")]
    {
        let trace_id = client.get(path).trace_id().to_owned();
        // The line of a failure has the same ids and comes first, so only access lines are counted.
        let access_lines = |stderr: &str| -> Vec<String> {
            let complete = stderr.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            complete.filter(|line| line.contains(" access: [") && line.contains(&trace_id)).map(str::to_owned).collect()
        };
        wait_until(SOON, || !access_lines(&program.stderr()).is_empty());
        let stderr = program.stderr();
        let lines = access_lines(&stderr);
        let [line] = &lines[..] else { panic!("{} access lines for one request:\n{stderr}", lines.len()) };
        assert!(line.contains(&format!(" {level} ")), "{line}");
        assert!(line.contains(&format!("] 127.0.0.1 GET http {path} {status}")), "{line}");
        assert!(line.contains(" span_id="), "{line}");
    }
}

#[test]
fn an_error_never_shows_what_went_wrong_inside() {
    let program = Program::start();
    let body = String::from_utf8(program.get("/api/fail").body).expect("text");
    for word in ["panicked", "src/", ".rs", "stack"] {
        assert!(!body.contains(word), "{body}");
    }
    let keys: Vec<_> =
        serde_json::from_str::<Value>(&body).expect("JSON").as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["message", "trace_id"]);
}

#[test]
fn a_client_that_goes_away_in_the_middle_does_no_harm() {
    let program = Program::start();
    for part in [
        "GET /api/activ",
        "GET /health HTTP/1.1\r\nHost: x\r\n",
        "POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        "POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\nabc",
        "GET /api/activities/home HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        for _ in 0..5 {
            let mut client = Client::connect(program.addr());
            client.send_raw(part.as_bytes());
        }
        assert_still_there(&program);
    }
}

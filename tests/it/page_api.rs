//! What the page is made of: its files, and the JSON about requests and deliveries. Bytes that are shown are compared with
//! bytes that arrived, and secrets are looked for everywhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::support::{Client, CloudWatch, Collector, Program, Received, Reply, SOON, XRayDaemon, wait_until};

const HOME: &str = "/api/activities/home";
const KEY: &str = "a-key-that-nobody-else-may-ever-see-0123456789";
const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLETOKENthatNobodyElseMayEverSee==";
const QUIET: &str = "[console]\nenabled = false\n";
const HONEYCOMB: &str = "[console]\nenabled = false\n[honeycomb]\nenabled = true\nschedule_delay = 50\n";

fn with_collector(collector: &Collector) -> Program {
    let setup = Program::setup().toml(HONEYCOMB).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    setup.env("HONEYCOMB_API_KEY", KEY).start()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that are shown, checked against the hash that is shown with them.
#[track_caller]
fn shown_bytes(shown: &Value) -> Vec<u8> {
    let bytes = match (&shown["text"], &shown["base64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(base64)) => BASE64.decode(base64).expect("base64"),
        _ => panic!("no bytes in {shown:#}"),
    };
    assert_eq!(
        (shown["sha256"].as_str(), shown["size"].as_u64()),
        (Some(sha256(&bytes).as_str()), Some(bytes.len() as u64))
    );
    bytes
}

/// The newest delivery of a backend, once it has met this end.
fn delivery(program: &Program, backend: &str, end: &str) -> Value {
    let mut newest = Value::Null;
    let came = wait_until(SOON, || {
        newest = program.get("/telemetry/deliveries").json()["deliveries"][backend].get(0).cloned().unwrap_or_default();
        newest["end"] == end
    });
    assert!(came, "no delivery of {backend} was {end}: {newest:#}");
    let id = newest["id"].as_str().expect("an id");
    program.get(&format!("/telemetry/deliveries/{id}")).json()
}

/// The head as it came, in the order it came, with its secret in the words of the page.
fn head_as_shown(received: &Received, secret: &str) -> String {
    let hidden = format!("({} characters, not shown)", secret.len());
    let headers: String = received
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", if value == secret { &hidden } else { value }))
        .collect();
    format!("{} {} HTTP/1.1\r\n{headers}\r\n", received.method, received.path)
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_says_so_to_the_browser() {
    let program = Program::start();
    let html = program.get("/");
    assert_eq!((html.status, html.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = html.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let text = String::from_utf8(html.body).expect("text");
    let mut files: Vec<&str> = text.split('"').filter(|part| part.starts_with("/page/")).collect();
    files.dedup();
    assert!(files.len() >= 3 && !text.contains("://"), "{files:?}");
    for file in files {
        assert_eq!(program.get(file).status, 200, "{file}");
    }
    assert_eq!(program.get("/page/nothing.js").status, 404);
    assert_eq!(program.get("/page/..%2fmod.rs").status, 404);
}

#[test]
fn nothing_that_the_page_asks_for_is_traced_or_counted() {
    let program = Program::start();
    for path in
        ["/", "/page/page.js", "/page/nothing", "/telemetry/status", "/telemetry/traces", "/telemetry/deliveries"]
    {
        program.get(path);
    }
    let status = program.get("/telemetry/status").json();
    assert_eq!((&status["requests"], &status["last_request"]), (&json!(0), &json!(0)));
}

#[test]
fn only_this_machine_is_shown_anything_and_only_when_it_asks_for_itself() {
    let program = Program::setup().toml(QUIET).start();
    let paths = [
        "/",
        "/page/page.js",
        "/telemetry/status",
        "/telemetry/traces",
        "/telemetry/traces/x",
        "/telemetry/deliveries",
        "/telemetry/deliveries/x-1",
    ];
    for path in paths {
        for header in [
            ("Host", "attacker.example:4567"),
            ("X-Forwarded-For", "203.0.113.7"),
            ("X-Real-IP", "203.0.113.7"),
            ("Via", "1.1 proxy"),
        ] {
            let answer = Client::connect(program.addr()).request("GET", path, &[header], b"");
            assert_eq!(answer.status, 403, "{path} {header:?}");
        }
        // As nginx passes it on by default.
        let mut proxy = Client::connect(program.addr());
        proxy.send_raw(
            format!("GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", program.addr()).as_bytes(),
        );
        assert_eq!(proxy.read_answer().status, 403, "{path} by HTTP/1.0");
    }
    let off = Program::setup().toml("[page]\nenabled = false\n[console]\nenabled = false\n").start();
    for path in paths {
        assert_eq!(off.get(path).status, 404, "{path}");
    }
}

#[test]
fn only_what_is_new_is_answered_to_who_knows_the_rest() {
    let program = Program::setup().toml(QUIET).start();
    let mut client = Client::connect(program.addr());
    for _ in 0..3 {
        client.get(HOME);
    }
    let list = client.get("/telemetry/traces?since=1").json();
    let numbers: Vec<_> = list["traces"].as_array().unwrap().iter().map(|trace| trace["number"].as_u64()).collect();
    assert_eq!((numbers, &list["last_request"]), (vec![Some(3), Some(2)], &json!(3)));
    assert_eq!(client.get("/telemetry/traces?since=3").json()["traces"], json!([]));
    assert_eq!(client.get("/telemetry/traces?since=yesterday").status, 400);
}

#[test]
fn a_trace_shows_its_log_lines_and_what_each_backend_would_make_of_it_though_all_are_off() {
    let program = Program::setup().toml(QUIET).start();
    let answer = program.get("/api/fail");
    let trace = program.get(&format!("/telemetry/traces/{}", answer.trace_id())).json();
    let request = &trace["requests"][0];
    let lines: Vec<_> = request["lines"].as_array().unwrap().iter().map(|line| line["target"].as_str()).collect();
    assert_eq!(lines, [Some("panic"), Some("access")]);
    assert_eq!(request["lines"][0]["span_id"], request["spans"][1]["span_id"]);

    let dialect = |backend: &str| request["dialects"][backend][0].as_str().unwrap_or_else(|| panic!("no {backend}"));
    let otlp: Value = serde_json::from_str(dialect("honeycomb")).unwrap();
    let span = &otlp["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["spanId"]), (&trace["trace_id"], &request["spans"][0]["span_id"]));
    let (header, document) = dialect("xray").split_once('\n').unwrap();
    assert_eq!(header, r#"{"format":"json","version":1}"#);
    assert_eq!(serde_json::from_str::<Value>(document).unwrap()["trace_id"], trace["xray_trace_id"]);
    let events: Value = serde_json::from_str(dialect("cloudwatch")).unwrap();
    let line: Value = serde_json::from_str(events["logEvents"][1]["message"].as_str().unwrap()).unwrap();
    assert_eq!(line["trace_id"], trace["trace_id"]);
    assert_eq!(trace["deliveries"], json!([]));
}

#[test]
fn of_a_trace_that_everything_belongs_to_the_last_requests_are_shown() {
    let program = Program::setup().toml(QUIET).start();
    let mut client = Client::connect(program.addr());
    let id = "4efaaf4d1e8720b39541901950019ee5";
    for _ in 0..25 {
        client.request("GET", HOME, &[("traceparent", &format!("00-{id}-53995c3f42cd8ad8-01"))], b"");
    }
    let trace = client.get(&format!("/telemetry/traces/{id}")).json();
    assert_eq!((trace["requests"].as_array().unwrap().len(), &trace["earlier"]), (20, &json!(5)));
    assert_eq!(trace["requests"][19]["number"], 25);
}

#[test]
fn an_unsampled_request_is_listed_with_the_reason() {
    let program = Program::setup().toml(QUIET).env("OTEL_TRACES_SAMPLER", "always_off").start();
    program.get(HOME);
    let trace = program.get("/telemetry/traces").json()["traces"][0].take();
    assert_eq!(trace["sampled"], false);
    assert!(trace["sampling"].as_str().unwrap().starts_with("not sampled: "), "{trace:#}");
}

#[test]
fn the_post_that_is_shown_is_the_post_that_arrived() {
    let collector = Collector::start([Reply::json(200, &json!({ "partialSuccess": {} })).with_header("x-seen", "yes")]);
    let program = with_collector(&collector);
    let trace_id = program.get(HOME).trace_id().to_owned();
    let shown = delivery(&program, "honeycomb", "delivered");
    let requests = collector.requests();
    assert_eq!(shown_bytes(&shown["payload"]), requests[0].raw_body);
    let [exchange] = &shown["exchanges"].as_array().unwrap()[..] else { panic!("{shown:#}") };
    assert_eq!(exchange["head"], head_as_shown(&requests[0], KEY));
    assert_eq!(exchange["body"], Value::Null);
    assert_eq!(exchange["to"], format!("{}/v1/traces", collector.url()));
    let answer = &exchange["answer"];
    assert_eq!((&answer["status"], shown_bytes(&answer["body"])), (&json!(200), br#"{"partialSuccess":{}}"#.to_vec()));
    assert!(answer["head"].as_str().unwrap().contains("x-seen: yes\r\n"), "{answer:#}");
    assert_eq!((&shown["traces"], &shown["tries"], &shown["items"]), (&json!([trace_id]), &json!(1), &json!(2)));

    let trace = program.get(&format!("/telemetry/traces/{trace_id}")).json();
    assert_eq!(trace["deliveries"][0]["id"], "honeycomb-1");
}

#[test]
fn a_zipped_body_is_shown_as_the_bytes_that_left() {
    let collector = Collector::ok();
    let setup = Program::setup().toml(&format!("{HONEYCOMB}compression = \"gzip\"\n"));
    let program = setup.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).start();
    program.get(HOME);
    let shown = delivery(&program, "honeycomb", "delivered");
    assert!(shown["payload"]["base64"].is_string());
    assert_eq!(shown_bytes(&shown["payload"]), collector.requests()[0].raw_body);
}

#[test]
fn the_datagram_that_is_shown_is_the_datagram_that_arrived() {
    let daemon = XRayDaemon::start();
    let toml = "[console]\nenabled = false\n[xray]\nenabled = true\nschedule_delay = 50\n";
    let program = Program::setup().toml(toml).env("AWS_XRAY_DAEMON_ADDRESS", daemon.addr()).start();
    program.get(HOME);
    let shown = delivery(&program, "xray", "delivered");
    let datagrams = daemon.wait_for_datagrams(1, SOON);
    assert_eq!(shown_bytes(&shown["payload"]), datagrams[0].text.as_bytes());
    assert_eq!(shown["exchanges"][0]["to"], format!("udp {}", daemon.addr()));
    assert_eq!(shown["exchanges"][0]["answer"], Value::Null);
}

#[test]
fn signed_calls_are_shown_with_what_was_signed_and_the_token_is_not() {
    let service = CloudWatch::start();
    service.add_key("ASIAIOSFODNN7EXAMPLE", CloudWatch::SECRET, Some(TOKEN));
    let toml = "[console]\nenabled = false\n[cloudwatch]\nenabled = true\nschedule_delay = 50\n";
    let program = Program::setup()
        .toml(toml)
        .env("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", service.url())
        .env("AWS_REGION", CloudWatch::REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
        .env("AWS_SESSION_TOKEN", TOKEN)
        .start();
    program.get(HOME);
    let shown = delivery(&program, "cloudwatch", "delivered");
    let calls = service.calls();
    let exchanges = shown["exchanges"].as_array().unwrap();
    assert_eq!(exchanges.len(), calls.len(), "the calls that make group and stream are shown too");
    for (exchange, call) in exchanges.iter().zip(&calls) {
        let body = if exchange["body"].is_null() { &shown["payload"] } else { &exchange["body"] };
        assert_eq!(shown_bytes(body), call.raw_body, "{}", call.operation);
        let head = exchange["head"].as_str().unwrap();
        assert!(head.contains(&format!("x-amz-target: Logs_20140328.{}\r\n", call.operation)), "{head}");
        // The text that is shown is the one that was signed, except for the token.
        let canonical = exchange["canonical_request"].as_str().unwrap();
        assert!(canonical.contains("x-amz-security-token:(") && canonical.ends_with(&sha256(&call.raw_body)));
        let real = canonical.replace(&format!("({} bytes, not shown)", TOKEN.len()), TOKEN);
        assert!(exchange["string_to_sign"].as_str().unwrap().ends_with(&sha256(real.as_bytes())));
        assert_eq!(exchange["answer"]["status"], call.status.unwrap());
    }
    let everything = [program.get("/telemetry/status"), program.get("/telemetry/deliveries")]
        .map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
    for secret in [TOKEN, CloudWatch::SECRET] {
        assert!(!shown.to_string().contains(secret) && !everything.concat().contains(secret));
    }
}

#[test]
fn a_refusal_is_shown_with_its_answer_and_without_the_key_that_the_answer_repeats() {
    let collector = Collector::start([Reply::json(401, &json!({ "error": format!("unknown API key {KEY}") }))]);
    let program = with_collector(&collector);
    program.get(HOME);
    let shown = delivery(&program, "honeycomb", "refused");
    assert_eq!(shown["exchanges"][0]["answer"]["body"]["text"], r#"{"error":"unknown API key ***"}"#);
    assert!(shown["said"].as_str().unwrap().contains("next: "), "{shown:#}");
    assert!(!shown.to_string().contains(KEY));
}

#[test]
fn a_password_in_the_address_leaves_as_a_header_that_is_shown_without_it() {
    let said = json!({ "error": "passw0rd of joe:passw0rd is wrong" });
    let collector = Collector::start([Reply::json(401, &said)]);
    let url = collector.url().replace("http://", "http://joe:passw0rd@");
    let program = Program::setup().toml(HONEYCOMB).env("OTEL_EXPORTER_OTLP_ENDPOINT", url).start();
    program.get(HOME);
    let shown = delivery(&program, "honeycomb", "refused");
    let request = &collector.requests()[0];
    let (_, sent) = request.headers.iter().find(|(name, _)| name == "authorization").expect("it is sent");
    assert_eq!(shown["exchanges"][0]["head"], head_as_shown(request, sent));
    let everything = format!("{shown}{}", program.get("/telemetry/status").json());
    assert!(
        !everything.contains("passw0rd") && !everything.contains(sent.trim_start_matches("Basic ")),
        "{everything}"
    );
}

#[test]
fn a_delivery_that_is_tried_again_shows_its_tries_and_what_keeps_it() {
    let collector = Collector::start([Reply::json(503, &json!({}))]);
    let program = with_collector(&collector);
    program.get(HOME);
    let waiting = delivery(&program, "honeycomb", "waiting");
    assert_eq!(waiting["exchanges"][0]["answer"]["status"], 503);
    assert!(waiting["said"].is_string());
    drop(collector);
    let silent = wait_until(SOON, || {
        let shown = delivery(&program, "honeycomb", "waiting");
        shown["tries"].as_u64() > Some(1) && shown["exchanges"][0]["error"] == "connection refused"
    });
    assert!(silent, "{:#}", delivery(&program, "honeycomb", "waiting"));
}

#[test]
fn the_status_says_how_much_waits_and_when_it_leaves() {
    let collector = Collector::ok();
    let toml =
        "[console]\nenabled = false\n[honeycomb]\nenabled = true\nschedule_delay = 60000\nmax_queue_size = 100\n";
    let program = Program::setup().toml(toml).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).start();
    assert_eq!(program.backend("honeycomb")["next_flush_ms"], Value::Null);
    program.get(HOME);
    let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| honeycomb["queued"] == 2);
    assert_eq!((&honeycomb["queue_capacity"], &honeycomb["batch"]), (&json!(100), &json!(100)));
    let due = honeycomb["next_flush_ms"].as_u64().expect("it is due");
    assert!((1..=60_000).contains(&due), "{due}");
}

#[test]
fn the_status_names_the_backends_in_the_order_of_the_program() {
    let status = Program::setup().toml(QUIET).start().get("/telemetry/status").json();
    let names: Vec<_> = cruddur::backends::BACKENDS.iter().map(|plugin| plugin.name).collect();
    assert_eq!(status["backend_order"], json!(names));
    assert_eq!(status["backends"].as_object().unwrap().len(), names.len());
}

#[test]
fn an_id_that_is_none_is_not_found() {
    let program = Program::setup().toml(QUIET).start();
    for id in [
        "",
        "x",
        "honeycomb",
        "honeycomb-",
        "honeycomb-1",
        "honeycomb-x",
        "-1",
        "nobody-1",
        "honeycomb-99999999999999999999",
    ] {
        assert_eq!(program.get(&format!("/telemetry/deliveries/{id}")).status, 404, "{id}");
    }
}

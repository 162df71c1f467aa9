//! Delivery to CloudWatch Logs, against a loopback service that is as strict as the real one. Every
//! line arrives in order, with the id of its trace, even when groups are deleted or calls are
//! refused or slow. Neither requests nor the end of the program ever wait for the service.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::aws::{NEW_KEY_ID, NEW_SECRET, TOKEN, assert_ended_well, assert_no_secret};
use crate::support::{
    Answer, Client, CloudWatch, Collector, Event, Program, Reply, SOON, Setup, TempDir, Trick, XRayDaemon, log_lines,
    unix_seconds, wait_until,
};

const HOME: &str = "/api/activities/home";
const TOML: &str = "[console]\nenabled = false\n[cloudwatch]\nenabled = true\nschedule_delay = 50\n";
const GROUP: &str = "cruddur";
const ENDPOINT: &str = "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS";
/// Port 1 needs privileges to listen on, so connections to it are refused.
const DEAD: &str = "http://127.0.0.1:1";

/// A program that has the region and the address, but no credentials.
fn anonymous(endpoint: &str) -> Setup {
    Program::setup()
        .toml(TOML)
        .env(ENDPOINT, endpoint)
        .env("AWS_REGION", CloudWatch::REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

/// The same with the key that the service accepts.
fn setup(endpoint: &str) -> Setup {
    anonymous(endpoint).env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID).env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
}

/// The same with credentials from a file.
fn with_file(endpoint: &str, file: &Path) -> Setup {
    anonymous(endpoint).env("AWS_SHARED_CREDENTIALS_FILE", file.display())
}

/// Writes a file of credentials in one step, so that no reader sees half of it.
fn write_credentials(dir: &TempDir, key_id: &str, secret: &str, token: Option<&str>) -> PathBuf {
    let mut text = format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n");
    if let Some(token) = token {
        text.push_str(&format!("aws_session_token = {token}\n"));
    }
    let path = dir.path().join("credentials");
    fs::rename(dir.write("credentials.new", &text), &path).expect("a file for the test");
    path
}

/// Requests the home page `times` times, one after the other, and returns the responses. No request
/// may be slow.
fn go_home(program: &Program, times: usize) -> Vec<Answer> {
    let mut client = Client::connect(program.addr());
    let answers = (0..times).map(|_| {
        let since = Instant::now();
        let answer = client.get(HOME);
        assert_eq!(answer.status, 200);
        assert!(since.elapsed() < Duration::from_secs(1), "a request took {:?}", since.elapsed());
        answer
    });
    answers.collect()
}

fn trace_ids(answers: &[Answer]) -> Vec<&str> {
    answers.iter().map(Answer::trace_id).collect()
}

/// The same id as X-Ray writes it.
fn xray(trace_id: &str) -> String {
    format!("1-{}-{}", &trace_id[..8], &trace_id[8..])
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("no {key} in {of:#}"))
}

fn count(backend: &Value, what: &str) -> u64 {
    backend[what].as_u64().unwrap_or_else(|| panic!("no {what} in {backend:#}"))
}

/// The trace ids of the access lines, in the order in which they arrived.
#[track_caller]
fn logged_ids(events: &[Event]) -> Vec<String> {
    let lines = events.iter().map(Event::json);
    lines.filter(|line| line["target"] == "access").map(|line| text(&line, "trace_id").to_owned()).collect()
}

/// Every request has one access line, in the order of the requests.
#[track_caller]
fn assert_in_order(events: &[Event], answers: &[Answer]) {
    let (logged, answered) = (logged_ids(events), trace_ids(answers));
    assert_eq!(logged.len(), answered.len());
    let first_wrong = logged.iter().zip(&answered).position(|(logged, answered)| logged != answered);
    assert_eq!(first_wrong, None, "the first line out of order");
}

/// Checks that the exporter logged exactly one line, which contains all of these parts.
#[track_caller]
fn assert_said_once(stderr: &str, parts: &[&str]) {
    let lines = log_lines(stderr, "cloudwatch");
    let [line] = lines[..] else { panic!("{} lines about one problem: {lines:#?}", lines.len()) };
    for part in parts.iter().chain(&[" WARN "]) {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

/// Waits for a log line of the exporter that contains `part`.
#[track_caller]
fn wait_until_said(program: &Program, part: &str) {
    let said = |line: &&str| line.contains(part);
    let held = wait_until(SOON, || log_lines(&program.stderr(), "cloudwatch").iter().any(said));
    assert!(held, "no {part:?} from cloudwatch:\n{}", program.stderr());
}

#[track_caller]
fn wait_until_settled(program: &Program, lines: u64) -> Value {
    program.wait_for_backend("cloudwatch", |cloudwatch| {
        ["delivered", "refused", "dropped"].iter().map(|end| count(cloudwatch, end)).sum::<u64>() == lines
    })
}

/// The loopback service verifies signatures with its own code. This test verifies that code, with
/// an example on which two independent signers agree.
#[test]
fn the_loopback_service_takes_the_worked_example_and_nothing_beside_it() {
    const BODY: &str = "{\"logGroupName\":\"cruddur\",\"logStreamName\":\"backend/1\",\"logEvents\":[{\"timestamp\":1768480496123,\
                        \"message\":\"127.0.0.1 GET http /api/activities/home? 200 \u{2713}\"}]}";
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260115/us-east-1/logs/aws4_request, \
                                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
                                 Signature=79dcbc6b5f4f0ed000445a2a2ca8e8dd9cbaf8f4ed19deac142c029841d4f5f0";
    let service = CloudWatch::start();
    let now = chrono::Utc::now().timestamp();
    let example = unix_seconds("2026-01-15T12:34:56.000000+00:00") as i64;
    let answer_to = |body: &str, authorization: &str, target: &str, clock: i64| {
        service.set_clock(example - now + clock);
        let headers = [
            ("Host", "logs.us-east-1.amazonaws.com"),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Date", "20260115T123456Z"),
            ("X-Amz-Target", target),
            ("Authorization", authorization),
        ];
        let mut client = Client::connect(service.url()["http://".len()..].parse().expect("an address"));
        let answer = client.request("POST", "/", &headers, body.as_bytes()).json();
        (text(&answer, "__type").to_owned(), text(&answer, "message").to_owned())
    };
    let put = "Logs_20140328.PutLogEvents";
    // The signature is valid, but there is no such group.
    assert_eq!(answer_to(BODY, AUTHORIZATION, put, 0).0, "ResourceNotFoundException");
    for (body, authorization, target) in [
        (BODY.replace("200", "201"), AUTHORIZATION.to_owned(), put),
        (BODY.to_owned(), AUTHORIZATION.replace("Signature=7", "Signature=8"), put),
        (BODY.to_owned(), AUTHORIZATION.replace(";x-amz-target", ""), put),
        (BODY.to_owned(), AUTHORIZATION.replace("us-east-1", "us-east-2"), put),
        (BODY.to_owned(), AUTHORIZATION.to_owned(), "Logs_20140328.CreateLogGroup"),
    ] {
        assert_eq!(answer_to(&body, &authorization, target, 0).0, "InvalidSignatureException", "{authorization}");
    }
    assert!(
        answer_to(BODY, AUTHORIZATION, put, 600).1.starts_with("Signature expired: 20260115T123456Z is now earlier")
    );
    assert!(answer_to(BODY, AUTHORIZATION, put, -600).1.starts_with("Signature not yet current: 20260115T123456Z"));
    let unknown = AUTHORIZATION.replace("AKIA", "AKIB");
    assert_eq!(answer_to(BODY, &unknown, put, 0).0, "UnrecognizedClientException");
    assert_eq!(answer_to(BODY, "", put, 0).0, "IncompleteSignatureException");
}

#[test]
fn a_thousand_requests_are_a_thousand_lines_in_order_each_with_the_trace_id_of_its_answer() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    let answers = go_home(&program, 1000);
    let events = service.wait_for_events(1000, SOON);
    assert_in_order(&events, &answers);
    for (event, answer) in events.iter().zip(&answers) {
        let line = event.json();
        let traceparent = answer.header("traceparent").expect("a traceparent");
        assert_eq!(text(&line, "span_id"), traceparent.split('-').nth(2).expect("a span id"));
        assert_eq!(text(&line, "xray_trace_id"), xray(answer.trace_id()));
        assert_eq!((text(&line, "target"), text(&line, "level")), ("access", "INFO"));
        let message = text(&line, "message");
        assert!(
            message.starts_with('[') && message.ends_with("] 127.0.0.1 GET http /api/activities/home 200 OK"),
            "{message}"
        );
        let time = text(&line, "time").strip_suffix('Z').expect("a time in UTC");
        let millis = (unix_seconds(&format!("{time}000+00:00")) * 1e3).round() as u64;
        assert_eq!(millis, event.timestamp, "{line:#}");
    }
    assert_eq!(service.groups(), [(GROUP.to_owned(), Some(7))]);
    assert_eq!(service.streams(GROUP).len(), 1, "one stream for all of them");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [1000, 0, 0, 0, 0]);
    assert!(exit.stderr.contains("of 1000 lines"), "{}", exit.stderr);
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0], "all was well");
    assert_eq!(service.events().len(), 1000, "none came twice");
}

#[test]
fn a_log_line_an_otlp_span_and_an_x_ray_document_carry_the_same_id() {
    let (service, collector, daemon) = (CloudWatch::start(), Collector::ok(), XRayDaemon::start());
    let program = setup(&service.url())
        .toml(&format!("{TOML}[honeycomb]\nenabled = true\nschedule_delay = 50\n[xray]\nenabled = true\n"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("AWS_XRAY_DAEMON_ADDRESS", daemon.addr())
        .start();
    let mut answers = Vec::new();
    for number in 0..5 {
        // `Sampled=1`, so that X-Ray takes every request.
        let root = format!("Root=1-5b8efff7-{number:024x};Sampled=1");
        let mut client = Client::connect(program.addr());
        answers.push(client.request("GET", HOME, &[("X-Amzn-Trace-Id", &root)], b""));
    }
    assert_in_order(&service.wait_for_events(5, SOON), &answers);
    for answer in &answers {
        let trace_id = answer.trace_id();
        let document = daemon.wait_for_trace(trace_id, SOON);
        assert_eq!(text(&document, "trace_id"), xray(trace_id));
        let has_it = || collector.spans().iter().any(|span| span["traceId"] == trace_id);
        assert!(wait_until(SOON, has_it), "no span with {trace_id}");
    }
    assert_ended_well(&program.terminate());
}

#[test]
fn a_call_has_exactly_the_headers_it_needs() {
    let service = CloudWatch::start();
    service.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN));
    let program = anonymous(&service.url())
        .env("AWS_ACCESS_KEY_ID", NEW_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", NEW_SECRET)
        .env("AWS_SESSION_TOKEN", TOKEN)
        .start();
    go_home(&program, 1);
    service.wait_for_events(1, SOON);
    for call in service.calls() {
        assert_eq!(call.header("content-type"), Some("application/x-amz-json-1.1"));
        assert_eq!(call.header("x-amz-target"), Some(format!("Logs_20140328.{}", call.operation).as_str()));
        assert_eq!(call.header("x-amz-security-token"), Some(TOKEN));
        assert_eq!(call.header("host"), service.url().strip_prefix("http://"));
        assert_eq!(call.header("content-length"), Some(call.raw_body.len().to_string().as_str()));
        for name in ["traceparent", "tracestate", "x-amzn-trace-id", "content-encoding", "transfer-encoding"] {
            assert_eq!(call.header(name), None, "{name}");
        }
        let agent = call.header("user-agent").unwrap_or_default();
        assert!(agent.starts_with(&format!("cruddur/{}", env!("CARGO_PKG_VERSION"))), "{agent}");
        let names: HashSet<_> = call.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), call.headers.len(), "a header was sent twice: {:?}", call.headers);
    }
    assert_ended_well(&program.terminate());
}

#[test]
fn the_address_of_the_service_goes_before_the_address_of_all_services() {
    let (service, other) = (CloudWatch::start(), CloudWatch::start());
    for setup in [
        setup(&service.url()).env("AWS_ENDPOINT_URL", other.url()),
        setup("").env("AWS_ENDPOINT_URL", service.url()),
        setup("").env("AWS_ENDPOINT_URL", format!("{}/", service.url())),
    ] {
        let before = service.events().len();
        let program = setup.start();
        go_home(&program, 1);
        service.wait_for_events(before + 1, SOON);
    }
    assert!(other.calls().is_empty());
}

#[test]
fn nothing_is_asked_and_nothing_is_made_before_the_first_line() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    assert_eq!(program.get("/health").status, 200);
    let cloudwatch = program.backend("cloudwatch");
    assert_eq!((text(&cloudwatch, "state"), text(&cloudwatch, "unit")), ("on", "lines"));
    assert!(text(&cloudwatch, "endpoint").contains(&service.url()), "{cloudwatch:#}");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 0, 0, 0]);
    assert!(service.calls().is_empty());
}

#[test]
fn it_is_off_until_somebody_switches_it_on() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).toml("[console]\nenabled = false\n").start();
    go_home(&program, 3);
    assert_eq!(text(&program.backend("cloudwatch"), "state"), "off");
    assert_ended_well(&program.terminate());
    assert!(service.calls().is_empty());
}

#[test]
fn the_group_and_the_stream_are_made_with_their_retention_when_the_first_line_needs_them() {
    let service = CloudWatch::start();
    let toml =
        format!("{TOML}log_group = \"my/group\"\nlog_stream = \"a:b*{{service}}/{{pid}}\"\nretention_days = 30\n");
    let program = setup(&service.url()).toml(&toml).start();
    go_home(&program, 1);
    service.wait_for_events(1, SOON);
    let calls = service.calls();
    let calls: Vec<_> = calls.iter().map(|call| (call.operation.as_str(), call.error)).collect();
    let missing = Some("ResourceNotFoundException");
    assert_eq!(
        calls,
        [
            ("PutLogEvents", missing),
            ("CreateLogStream", missing),
            ("CreateLogGroup", None),
            ("PutRetentionPolicy", None),
            ("CreateLogStream", None),
            ("PutLogEvents", None),
        ]
    );
    assert_eq!(service.groups(), [("my/group".to_owned(), Some(30))]);
    assert_eq!(service.streams("my/group"), [format!("a-b-backend-flask/{}", program.pid())]);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0]);
}

#[test]
fn a_group_that_is_there_already_keeps_the_retention_that_it_has() {
    let service = CloudWatch::start();
    service.make_group(GROUP);
    let program = setup(&service.url()).start();
    go_home(&program, 1);
    service.wait_for_events(1, SOON);
    assert_eq!(service.groups(), [(GROUP.to_owned(), None)]);
}

#[test]
fn two_servers_at_once_share_a_group() {
    let service = CloudWatch::start();
    let toml = format!("{TOML}log_stream = \"shared\"\n");
    let programs: Vec<_> = (0..2).map(|_| setup(&service.url()).toml(&toml).start()).collect();
    thread::scope(|scope| {
        for program in &programs {
            scope.spawn(|| go_home(program, 100));
        }
    });
    let events = service.wait_for_events(200, SOON);
    assert_eq!(logged_ids(&events).into_iter().collect::<HashSet<_>>().len(), 200);
    for program in programs {
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("cloudwatch"), [100, 0, 0, 0, 0]);
        assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0]);
    }
}

#[test]
fn a_stream_or_a_group_that_is_deleted_meanwhile_costs_no_line() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    let mut answers = go_home(&program, 100);
    service.wait_for_events(100, SOON);
    let [stream] = &service.streams(GROUP)[..] else { panic!("not one stream") };
    service.delete_stream(GROUP, stream);
    answers.extend(go_home(&program, 100));
    service.wait_for_events(200, SOON);
    service.delete_group(GROUP);
    answers.extend(go_home(&program, 100));
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [300, 0, 0, 0, 0]);
    assert_in_order(&service.events(), &answers);
    assert_eq!(service.groups(), [(GROUP.to_owned(), Some(7))], "the new group has its retention, too");
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0], "what it can mend it does not complain about");
}

#[test]
fn a_stream_that_is_deleted_again_and_again_under_load_costs_no_line() {
    let service = CloudWatch::start();
    let toml = format!("{TOML}max_export_batch_size = 20\n").replace("= 50", "= 10");
    let program = setup(&service.url()).toml(&toml).start();
    let answers = thread::scope(|scope| {
        let requests = scope.spawn(|| go_home(&program, 1000));
        let mut arrived = 0;
        for _ in 0..10 {
            arrived = service.wait_for_events((arrived + 20).min(1000), SOON).len();
            for stream in service.streams(GROUP) {
                service.delete_stream(GROUP, &stream);
            }
        }
        requests.join().expect("all answered")
    });
    assert_in_order(&service.wait_for_events(1000, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [1000, 0, 0, 0, 0]);
    assert_eq!(service.events().len(), 1000);
    let made = service.calls_of("CreateLogStream").iter().filter(|call| call.status == Some(200)).count();
    assert!(made > 2, "the stream was made {made} times");
}

#[test]
fn the_level_says_which_lines_go_whatever_stderr_shows() {
    for (level, access_lines) in [("error", 1), ("warn", 2), ("info", 3), ("debug", 4)] {
        let service = CloudWatch::start();
        let toml = format!("{TOML}level = \"{level}\"\n");
        let program = setup(&service.url()).toml(&toml).env("RUST_LOG", "off").start();
        for (status, path) in [(200, HOME), (404, "/nothing"), (500, "/api/fail?how=error"), (200, "/health")] {
            assert_eq!(program.get(path).status, status, "{path}");
        }
        let exit = program.terminate();
        assert_ended_well(&exit);
        let lines: Vec<_> = service.events().iter().map(Event::json).collect();
        let statuses = lines.iter().filter(|line| line["target"] == "access");
        assert_eq!(statuses.count(), access_lines, "{level}: {lines:#?}");
        let worst_first = ["ERROR", "WARN", "INFO", "DEBUG"];
        let allowed = &worst_first[..access_lines];
        assert!(lines.iter().all(|line| allowed.contains(&text(line, "level"))), "{level}: {lines:#?}");
        assert!(!exit.stderr.contains("access:"), "{}", exit.stderr);
    }
}

#[test]
fn a_failure_is_logged_with_the_trace_that_it_happened_in() {
    for path in ["/api/fail", "/api/fail?how=error"] {
        let service = CloudWatch::start();
        let program = setup(&service.url()).start();
        let answer = program.get(path);
        assert_eq!(answer.status, 500);
        let exit = program.terminate();
        assert_ended_well(&exit);
        let lines: Vec<_> = service.events().iter().map(Event::json).collect();
        assert!(lines.len() >= 2, "the access line, and what went wrong: {lines:#?}");
        for line in lines {
            assert_eq!((text(&line, "level"), text(&line, "trace_id")), ("ERROR", answer.trace_id()), "{line:#}");
        }
    }
}

#[test]
fn text_is_a_line_as_on_stderr_with_the_id_in_both_spellings() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).toml(&format!("{TOML}format = \"text\"\n")).start();
    let answer = program.get(HOME);
    let events = service.wait_for_events(1, SOON);
    let line = &events[0].message;
    assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
    let [id, xray_id] = [answer.trace_id().to_owned(), xray(answer.trace_id())];
    for part in [" INFO ", " access: ", "GET http /api/activities/home 200 OK", &id, &xray_id] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert!(!line.contains('\n'), "{line:?}");
}

#[test]
fn gzip_is_sent_and_signed_only_when_asked_for() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).toml(&format!("{TOML}compression = \"gzip\"\n")).start();
    let answers = go_home(&program, 100);
    assert_in_order(&service.wait_for_events(100, SOON), &answers);
    let put = service.calls_of("PutLogEvents").pop().expect("a call");
    assert_eq!(put.header("content-encoding"), Some("gzip"));
    assert!(put.raw_body.len() < put.body.to_string().len());
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [100, 0, 0, 0, 0]);
}

#[test]
fn a_burst_arrives_also_when_the_end_comes_right_after() {
    const REQUESTS: usize = 5000;
    let service = CloudWatch::start();
    // The default delay of five seconds, so that most lines are still queued when the signal
    // arrives. They exceed the megabyte that one batch may have, so they need several batches.
    let program = setup(&service.url()).toml(&TOML.replace("schedule_delay = 50\n", "")).start();
    let mut client = Client::connect(program.addr());
    let mut answers = Vec::new();
    let requests = format!("GET {HOME} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(50);
    while answers.len() < REQUESTS {
        client.send_raw(requests.as_bytes());
        answers.extend((0..50).map(|_| client.read_answer()));
    }
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(exit.took < Duration::from_secs(5), "it took {:?}", exit.took);
    assert_eq!(exit.counts("cloudwatch"), [REQUESTS as u64, 0, 0, 0, 0]);
    assert_in_order(&service.events(), &answers);
    assert!(service.calls_of("PutLogEvents").len() > 2, "it was more than one batch");
}

#[test]
fn ctrl_c_flushes_too() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).toml(&TOML.replace("schedule_delay = 50\n", "")).start();
    let answers = go_home(&program, 3);
    let exit = program.interrupt();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
    assert_in_order(&service.events(), &answers);
}

#[test]
fn a_setting_that_the_service_would_refuse_is_refused_at_start_and_its_line_is_named() {
    for setting in [
        "retention_days = 2",
        "retention_days = 0",
        "log_group = \"a group\"",
        "log_group = \"aws/mine\"",
        "level = \"loud\"",
        "format = \"xml\"",
        "compression = \"zip\"",
        "log_grup = \"cruddur\"",
    ] {
        let toml = format!("[console]\nenabled = false\n[cloudwatch]\nenabled = true\n{setting}\n");
        let exit = Program::run_to_end(&[], &[("AWS_REGION", CloudWatch::REGION)], Some(&toml));
        assert_eq!(exit.status.code(), Some(2), "{setting}: {}", exit.stderr);
        let (key, _) = setting.split_once(' ').expect("a key");
        assert!(exit.stderr.contains("telemetry.toml:5") && exit.stderr.contains(key), "{setting}: {}", exit.stderr);
    }
}

#[test]
fn without_a_region_it_waits_and_says_what_is_missing() {
    let service = CloudWatch::start();
    let program = Program::setup()
        .toml(TOML)
        .env(ENDPOINT, service.url())
        .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .start();
    go_home(&program, 3);
    let cloudwatch = program.backend("cloudwatch");
    assert_eq!(text(&cloudwatch, "state"), "waiting", "{cloudwatch:#}");
    assert!(text(&cloudwatch, "reason").contains("AWS_REGION"), "{cloudwatch:#}");
    program.wait_for_stderr("AWS_REGION");
    assert_ended_well(&program.terminate());
    assert!(service.calls().is_empty());
}

#[test]
fn the_region_is_found_wherever_aws_puts_it() {
    let dir = TempDir::new();
    let config = dir.write("config", "[profile me]\nregion = us-east-1\n[default]\nregion = eu-south-9\n");
    let service = CloudWatch::start();
    let base = || {
        let setup = Program::setup().toml(TOML).env(ENDPOINT, service.url()).env("AWS_EC2_METADATA_DISABLED", "true");
        setup.env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID).env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
    };
    for setup in [
        base().env("AWS_REGION", "us-east-1").env("AWS_DEFAULT_REGION", "eu-south-9"),
        base().env("AWS_REGION", "").env("AWS_DEFAULT_REGION", "us-east-1"),
        base().env("AWS_CONFIG_FILE", config.display()).env("AWS_PROFILE", "me"),
    ] {
        let before = service.events().len();
        let program = setup.start();
        go_home(&program, 1);
        service.wait_for_events(before + 1, SOON);
    }
}

#[test]
fn a_wrong_region_is_answered_with_one_sentence() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).env("AWS_REGION", "eu-south-9").start();
    go_home(&program, 3);
    wait_until_said(&program, "region");
    go_home(&program, 3);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_said_once(&exit.stderr, &["region", "next: "]);
    let [delivered, refused, dropped, ..] = exit.counts("cloudwatch");
    assert_eq!((delivered, refused + dropped), (0, 6));
}

#[test]
fn without_credentials_lines_wait_until_there_are_some() {
    let (service, dir) = (CloudWatch::start(), TempDir::new());
    let program = with_file(&service.url(), &dir.path().join("credentials")).start();
    let mut answers = go_home(&program, 3);
    wait_until_said(&program, "AWS_ACCESS_KEY_ID");
    answers.extend(go_home(&program, 3));
    assert_said_once(&program.stderr(), &["AWS_ACCESS_KEY_ID"]);
    let cloudwatch = program.backend("cloudwatch");
    assert!(text(&cloudwatch["last_error"], "text").contains("AWS_ACCESS_KEY_ID"), "{cloudwatch:#}");
    assert!(service.calls().is_empty());
    write_credentials(&dir, CloudWatch::KEY_ID, CloudWatch::SECRET, None);
    assert_in_order(&service.wait_for_events(6, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0]);
}

#[test]
fn without_credentials_the_end_is_quick_and_what_is_lost_is_counted() {
    let service = CloudWatch::start();
    let program = anonymous(&service.url()).start();
    go_home(&program, 10);
    wait_until_said(&program, "AWS_ACCESS_KEY_ID");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_said_once(&exit.stderr, &["AWS_ACCESS_KEY_ID"]);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 10, 0, 0]);
}

#[test]
fn half_of_the_credentials_are_not_completed_from_elsewhere() {
    let dir = TempDir::new();
    let whole = write_credentials(&dir, CloudWatch::KEY_ID, CloudWatch::SECRET, None);
    let half = dir.write("half", &format!("[default]\naws_access_key_id = {}\n", CloudWatch::KEY_ID));
    let service = CloudWatch::start();
    for (setup, part) in [
        (with_file(&service.url(), &whole).env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID), "AWS_SECRET_ACCESS_KEY"),
        (with_file(&service.url(), &whole).env("AWS_SECRET_ACCESS_KEY", NEW_SECRET), "AWS_ACCESS_KEY_ID"),
        (with_file(&service.url(), &half), "aws_secret_access_key"),
    ] {
        let program = setup.start();
        go_home(&program, 3);
        wait_until_said(&program, part);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_said_once(&exit.stderr, &[part]);
    }
    assert!(service.calls().is_empty());
}

#[test]
fn what_is_denied_is_said_once_and_its_lines_arrive_as_soon_as_it_is_allowed() {
    for operation in ["PutLogEvents", "CreateLogStream", "CreateLogGroup"] {
        let service = CloudWatch::start();
        service.deny(&[operation]);
        let program = setup(&service.url()).start();
        let mut answers = go_home(&program, 3);
        wait_until_said(&program, "AccessDeniedException");
        answers.extend(go_home(&program, 3));
        assert_said_once(&program.stderr(), &["AccessDeniedException", &format!("logs:{operation}"), "next: "]);
        assert!(service.calls().len() < 20, "it is tried again slowly, not {} times", service.calls().len());
        service.deny(&[]);
        assert_in_order(&service.wait_for_events(6, SOON), &answers);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0], "{operation}");
    }
}

#[test]
fn a_retention_that_may_not_be_set_costs_a_sentence_and_no_line() {
    let service = CloudWatch::start();
    service.deny(&["PutRetentionPolicy"]);
    let program = setup(&service.url()).start();
    go_home(&program, 3);
    service.wait_for_events(3, SOON);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_said_once(&exit.stderr, &["logs:PutRetentionPolicy"]);
    assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
}

#[test]
fn credentials_that_were_renewed_in_time_cost_nothing() {
    let (service, dir) = (CloudWatch::start(), TempDir::new());
    service.add_key(CloudWatch::KEY_ID, CloudWatch::SECRET, Some(TOKEN));
    let file = write_credentials(&dir, CloudWatch::KEY_ID, CloudWatch::SECRET, Some(TOKEN));
    let program = with_file(&service.url(), &file).start();
    let mut answers = go_home(&program, 3);
    service.wait_for_events(3, SOON);
    service.expire_key(CloudWatch::KEY_ID);
    service.add_key(NEW_KEY_ID, NEW_SECRET, None);
    write_credentials(&dir, NEW_KEY_ID, NEW_SECRET, None);
    answers.extend(go_home(&program, 3));
    assert_in_order(&service.wait_for_events(6, SOON), &answers);
    assert_eq!(service.calls().pop().expect("a call").key_id(), NEW_KEY_ID);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0]);
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0]);
}

#[test]
fn credentials_that_expired_are_said_once_and_lines_wait_for_new_ones() {
    let (service, dir) = (CloudWatch::start(), TempDir::new());
    service.add_key(CloudWatch::KEY_ID, CloudWatch::SECRET, Some(TOKEN));
    let file = write_credentials(&dir, CloudWatch::KEY_ID, CloudWatch::SECRET, Some(TOKEN));
    let program = with_file(&service.url(), &file).start();
    let mut answers = go_home(&program, 3);
    service.wait_for_events(3, SOON);
    service.expire_key(CloudWatch::KEY_ID);
    answers.extend(go_home(&program, 3));
    wait_until_said(&program, "ExpiredTokenException");
    answers.extend(go_home(&program, 3));
    assert_said_once(&program.stderr(), &["ExpiredTokenException", "next: "]);
    service.add_key(NEW_KEY_ID, NEW_SECRET, None);
    write_credentials(&dir, NEW_KEY_ID, NEW_SECRET, None);
    assert_in_order(&service.wait_for_events(9, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [9, 0, 0, 0, 0]);
}

#[test]
fn a_container_gets_its_credentials_from_the_address_that_it_is_given() {
    let service = CloudWatch::start();
    service.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN));
    let credentials = json!({
        "AccessKeyId": NEW_KEY_ID, "SecretAccessKey": NEW_SECRET, "Token": TOKEN, "Expiration": "2099-01-01T00:00:00Z",
    });
    let endpoint = Collector::start([Reply::json(200, &credentials)]);
    let program = anonymous(&service.url())
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", endpoint.url()))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic abc")
        .start();
    assert!(endpoint.requests().is_empty(), "nothing is asked before the first line");
    let answers = go_home(&program, 3);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let requests = endpoint.requests();
    let [request] = &requests[..] else { panic!("{} requests for one set of credentials", requests.len()) };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/v1/credentials"));
    assert_eq!(request.header("authorization"), Some("Basic abc"));
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(!exit.stderr.contains("Basic abc"));
}

#[test]
fn a_machine_gets_its_credentials_from_its_metadata_in_three_steps() {
    let service = CloudWatch::start();
    service.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN));
    let credentials = json!({
        "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": NEW_KEY_ID,
        "SecretAccessKey": NEW_SECRET, "Token": TOKEN, "Expiration": "2099-01-01T00:00:00Z",
    });
    let metadata = Collector::start([
        Reply::text(200, "text/plain", "a-token"),
        Reply::text(200, "text/plain", "my-role\n"),
        Reply::json(200, &credentials),
    ]);
    let program = anonymous(&service.url())
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
        .start();
    let answers = go_home(&program, 3);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let asked: Vec<_> =
        metadata.requests().into_iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    let path = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(asked, ["PUT /latest/api/token".to_owned(), format!("GET {path}"), format!("GET {path}my-role")]);
    for request in &metadata.requests()[1..] {
        assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("a-token"));
    }
    assert_ended_well(&program.terminate());
}

#[test]
fn credentials_that_never_come_keep_nobody_from_ending() {
    let (service, endpoint) = (CloudWatch::start(), Collector::start([Reply::Hang]));
    let program = anonymous(&service.url()).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url()).start();
    go_home(&program, 3);
    endpoint.wait_for(|requests| !requests.is_empty(), SOON);
    go_home(&program, 3);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 6, 0, 0]);
    assert!(service.calls().is_empty());
}

#[test]
fn a_wrong_secret_is_refused_said_once_and_the_server_answers() {
    let service = CloudWatch::start();
    service.add_key(NEW_KEY_ID, "not the one that the program has", None);
    let program = anonymous(&service.url())
        .env("AWS_ACCESS_KEY_ID", NEW_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", NEW_SECRET)
        // When the service refuses a call, it repeats all signed headers.
        .env("AWS_SESSION_TOKEN", TOKEN)
        .start();
    go_home(&program, 3);
    wait_until_said(&program, "InvalidSignatureException");
    go_home(&program, 3);
    let cloudwatch = program.wait_for_backend("cloudwatch", |cloudwatch| cloudwatch["failing_since"].is_string());
    assert_no_secret("status", &cloudwatch.to_string());
    assert_said_once(&program.stderr(), &["InvalidSignatureException", "AWS_SECRET_ACCESS_KEY", "next: "]);
    // The lines stay queued until the secret is right, and are lost when the program ends before
    // that.
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 6, 0, 0]);
}

#[test]
fn an_unknown_key_is_said_once_and_its_lines_wait() {
    let service = CloudWatch::start();
    let program =
        anonymous(&service.url()).env("AWS_ACCESS_KEY_ID", NEW_KEY_ID).env("AWS_SECRET_ACCESS_KEY", NEW_SECRET).start();
    let answers = go_home(&program, 3);
    wait_until_said(&program, "UnrecognizedClientException");
    assert_said_once(&program.stderr(), &["UnrecognizedClientException", "next: "]);
    service.add_key(NEW_KEY_ID, NEW_SECRET, None);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
}

#[test]
fn a_clock_that_is_off_by_ten_minutes_is_said_once_and_costs_no_line() {
    for ahead in [600, -600] {
        let service = CloudWatch::start();
        service.set_clock(ahead);
        let program = setup(&service.url()).start();
        let mut answers = go_home(&program, 3);
        service.wait_for_events(3, SOON);
        answers.extend(go_home(&program, 3));
        assert_in_order(&service.wait_for_events(6, SOON), &answers);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_said_once(&exit.stderr, &["clock"]);
        assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0]);
        let refused = service.calls().iter().filter(|call| call.error == Some("InvalidSignatureException")).count();
        assert_eq!(refused, 1, "once it knows the time it signs with it");
    }
}

#[test]
fn a_clock_that_goes_wrong_meanwhile_is_followed() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    let mut answers = Vec::new();
    for ahead in [0, 1800, -1800, 0] {
        service.set_clock(ahead);
        answers.extend(go_home(&program, 3));
        service.wait_for_events(answers.len(), SOON);
    }
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [12, 0, 0, 0, 0]);
    assert_in_order(&service.events(), &answers);
}

#[test]
fn a_signature_that_expired_though_no_clock_is_wrong_is_said_once() {
    let service = CloudWatch::start();
    let message =
        "Signature expired: 20260115T123456Z is now earlier than 20260115T124456Z (20260115T124956Z - 5 min.)";
    service.play(usize::MAX, Trick::error("InvalidSignatureException", message));
    let program = setup(&service.url()).start();
    go_home(&program, 3);
    wait_until_said(&program, "Signature expired");
    go_home(&program, 3);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_said_once(&exit.stderr, &["Signature expired", "clock", "next: "]);
    let [delivered, refused, dropped, ..] = exit.counts("cloudwatch");
    assert_eq!((delivered, refused + dropped), (0, 6));
}

/// A temporary failure: every line arrives once, in order. The failure and the recovery are each
/// logged once.
#[track_caller]
fn assert_waits_out(tricks: &[Trick], said: &str) {
    let service = CloudWatch::start();
    for trick in tricks {
        service.play(1, trick.clone());
    }
    let program = setup(&service.url()).start();
    let mut answers = go_home(&program, 3);
    service.wait_for_calls(|calls| !calls.is_empty(), SOON);
    // These requests arrive while the sender waits.
    answers.extend(go_home(&program, 3));
    assert_in_order(&service.wait_for_events(6, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0]);
    assert_eq!(service.events().len(), 6, "none came twice");
    let lines = log_lines(&exit.stderr, "cloudwatch");
    let [trouble, recovery] = lines[..] else { panic!("{} lines: {lines:#?}", lines.len()) };
    assert!(trouble.contains(" WARN ") && trouble.contains(said), "no {said:?} in {trouble}");
    assert!(recovery.contains(" INFO ") && recovery.contains("again"), "{recovery}");
}

#[test]
fn a_throttle_is_waited_out() {
    let throttle = Trick::error("ThrottlingException", "Rate exceeded");
    assert_waits_out(&[throttle.clone(), throttle], "Rate exceeded");
    assert_waits_out(&[Trick::Answer(429, "")], "429");
}

#[test]
fn an_error_inside_the_service_is_waited_out() {
    assert_waits_out(&[Trick::Answer(500, "")], "500");
    let unavailable = Trick::Error(503, "ServiceUnavailableException", "back soon".to_owned());
    assert_waits_out(&[unavailable], "back soon");
}

#[test]
fn a_gateway_that_answers_in_html_is_waited_out() {
    assert_waits_out(&[Trick::Answer(502, "<html><h1>Bad Gateway</h1></html>")], "502");
    assert_waits_out(&[Trick::Answer(504, "<html><h1>Gateway Time-out</h1></html>")], "504");
}

#[test]
fn what_is_not_http_is_waited_out() {
    assert_waits_out(&[Trick::Garbage], "http://127.0.0.1");
}

/// A captive portal or a proxy: its response does not prove that the service has stored a line.
#[test]
fn a_200_that_is_not_from_the_service_is_waited_out() {
    assert_waits_out(&[Trick::Answer(200, "<html>Welcome to our hotel!</html>")], "200");
}

#[test]
fn a_throttle_while_group_and_stream_are_made_is_waited_out() {
    for calls_before in 1..5 {
        let service = CloudWatch::start();
        let program = setup(&service.url()).start();
        let throttle = Trick::error("ThrottlingException", "Rate exceeded");
        // The earlier calls succeed.
        for _ in 0..calls_before {
            service.play(1, Trick::WorkAndAnswer("{}"));
        }
        service.play(1, throttle);
        let answers = go_home(&program, 3);
        assert_in_order(&service.wait_for_events(3, SOON), &answers);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
        assert_eq!(service.groups().len(), 1);
    }
}

#[test]
fn a_connection_that_is_reset_loses_nothing() {
    let service = CloudWatch::start();
    service.play(3, Trick::Reset);
    let program = setup(&service.url()).start();
    let answers = go_home(&program, 3);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
}

#[test]
fn an_idle_connection_that_was_closed_is_opened_again_without_a_word() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.extend(go_home(&program, 3));
        service.wait_for_events(answers.len(), SOON);
        wait_until_settled(&program, answers.len() as u64);
        service.hang_up();
    }
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_in_order(&service.events(), &answers);
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0]);
}

#[test]
fn an_answer_that_got_lost_may_double_a_line_but_loses_none() {
    let service = CloudWatch::start();
    let program = setup(&service.url()).start();
    let mut answers = go_home(&program, 3);
    service.wait_for_events(3, SOON);
    wait_until_settled(&program, 3);
    service.play(1, Trick::WorkAndReset);
    answers.extend(go_home(&program, 3));
    wait_until_settled(&program, 6);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [6, 0, 0, 0, 0]);
    let logged: HashSet<_> = logged_ids(&service.events()).into_iter().collect();
    assert!(trace_ids(&answers).iter().all(|id| logged.contains(*id)));
    assert!(service.events().len() > 6, "the service has stored a batch twice");
}

#[test]
fn an_empty_200_is_a_success() {
    let service = CloudWatch::start();
    service.play(usize::MAX, Trick::WorkAndAnswer(""));
    let program = setup(&service.url()).start();
    let answers = go_home(&program, 3);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [3, 0, 0, 0, 0]);
    assert_eq!(service.events().len(), 3, "none came twice");
    assert_eq!(log_lines(&exit.stderr, "cloudwatch"), [""; 0]);
}

#[test]
fn a_service_that_hangs_harms_no_request_and_costs_no_line_once_it_is_back() {
    let service = CloudWatch::start();
    service.play(1, Trick::Hang);
    let program = setup(&service.url()).start();
    let mut answers = go_home(&program, 3);
    service.wait_for_calls(|calls| calls.len() == 1, SOON);
    answers.extend(go_home(&program, 500));
    service.hang_up();
    assert_in_order(&service.wait_for_events(503, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [503, 0, 0, 0, 0]);
}

#[test]
fn a_service_that_hangs_keeps_nobody_from_ending() {
    let service = CloudWatch::start();
    service.play(usize::MAX, Trick::Hang);
    let program = setup(&service.url()).start();
    go_home(&program, 5);
    service.wait_for_calls(|calls| !calls.is_empty(), SOON);
    go_home(&program, 5);
    let exit = program.terminate();
    assert_ended_well(&exit);
    let [delivered, refused, dropped, sampled_out, queued] = exit.counts("cloudwatch");
    assert_eq!((delivered, refused, dropped + queued, sampled_out), (0, 0, 10, 0), "{}", exit.stderr);
}

#[test]
fn a_sender_that_waits_to_try_again_keeps_nobody_from_ending() {
    let service = CloudWatch::start();
    service.play(usize::MAX, Trick::error("ThrottlingException", "Rate exceeded"));
    let program = setup(&service.url()).start();
    go_home(&program, 5);
    wait_until_said(&program, "Rate exceeded");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 5, 0, 0]);
    assert_said_once(&exit.stderr, &["Rate exceeded"]);
}

#[test]
fn a_throttle_that_ends_in_time_costs_no_line_at_the_end() {
    let service = CloudWatch::start();
    service.play(usize::MAX, Trick::error("ThrottlingException", "Rate exceeded"));
    let program = setup(&service.url()).start();
    let answers = go_home(&program, 5);
    wait_until_said(&program, "Rate exceeded");
    service.behave();
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [5, 0, 0, 0, 0]);
    assert_in_order(&service.events(), &answers);
}

#[test]
fn a_dead_endpoint_is_one_line_and_a_quick_end() {
    let program = setup(DEAD).start();
    go_home(&program, 100);
    wait_until_said(&program, DEAD);
    go_home(&program, 100);
    let cloudwatch = program.backend("cloudwatch");
    assert_eq!(count(&cloudwatch, "queued") + count(&cloudwatch, "in_flight"), 200, "{cloudwatch:#}");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_said_once(&exit.stderr, &[DEAD, "next: "]);
    assert_eq!(exit.counts("cloudwatch"), [0, 0, 200, 0, 0]);
}

#[test]
fn a_full_queue_drops_and_counts_and_memory_stays_flat() {
    let service = CloudWatch::start();
    service.play(1, Trick::Hang);
    let toml = format!("{TOML}max_queue_size = 64\nmax_export_batch_size = 16\n");
    let program = setup(&service.url()).toml(&toml).start();
    go_home(&program, 500);
    let before = program.rss_kb();
    go_home(&program, 1500);
    let after = program.rss_kb();
    assert!(after < before + 4096, "from {before} kB to {after} kB");
    let cloudwatch = program.backend("cloudwatch");
    let all: u64 = ["queued", "in_flight", "delivered", "dropped"].iter().map(|end| count(&cloudwatch, end)).sum();
    assert_eq!(all, 2000, "{cloudwatch:#}");
    assert!(count(&cloudwatch, "queued") <= 64, "{cloudwatch:#}");
    let dropped = count(&cloudwatch, "dropped");
    service.hang_up();
    service.wait_for_events(2000 - dropped as usize, SOON);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [2000 - dropped, 0, dropped, 0, 0]);
    assert!(log_lines(&exit.stderr, "cloudwatch").len() <= 3, "{}", exit.stderr);
}

#[test]
fn a_batch_that_breaks_a_rule_is_counted_as_refused_and_the_next_goes_through() {
    let service = CloudWatch::start();
    service.play(1, Trick::error("InvalidParameterException", "Log event too strange"));
    let program = setup(&service.url()).start();
    go_home(&program, 1);
    let cloudwatch = wait_until_settled(&program, 1);
    assert_eq!(count(&cloudwatch, "refused"), 1, "{cloudwatch:#}");
    assert!(text(&cloudwatch["last_error"], "text").contains("too strange"), "{cloudwatch:#}");
    let answers = go_home(&program, 3);
    assert_in_order(&service.wait_for_events(3, SOON), &answers);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("cloudwatch"), [3, 1, 0, 0, 0]);
    assert_eq!(exit.stderr.matches("too strange").count(), 1, "{}", exit.stderr);
}

#[test]
fn events_that_the_service_did_not_store_are_counted_by_its_indices_and_not_sent_again() {
    for (info, refused) in [
        (r#"{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":3}}"#, 3),
        (r#"{"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":3}}"#, 7),
        (r#"{"rejectedLogEventsInfo":{"expiredLogEventEndIndex":2,"tooOldLogEventEndIndex":1}}"#, 2),
    ] {
        let service = CloudWatch::start();
        let toml = TOML.replace("schedule_delay = 50", "max_export_batch_size = 10\nschedule_delay = 60000");
        let program = setup(&service.url()).toml(&toml).start();
        service.play(1, Trick::Answer(200, info));
        go_home(&program, 10);
        let cloudwatch = wait_until_settled(&program, 10);
        assert_eq!(count(&cloudwatch, "refused"), refused, "{info}: {cloudwatch:#}");
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("cloudwatch"), [10 - refused, refused, 0, 0, 0]);
        assert_said_once(&exit.stderr, &["next: "]);
        assert_eq!(service.calls().len(), 1, "what is rejected is not sent again");
    }
}

#[test]
fn the_lines_of_the_exporters_never_arrive_in_the_group() {
    let (service, daemon) = (CloudWatch::start(), XRayDaemon::start());
    service.play(1, Trick::error("ThrottlingException", "Rate exceeded"));
    let toml =
        format!("{TOML}level = \"debug\"\n[honeycomb]\nenabled = true\nschedule_delay = 50\n[xray]\nenabled = true\n");
    let program = setup(&service.url())
        .toml(&toml)
        .env("RUST_LOG", "trace")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", DEAD)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", 100)
        .env("AWS_XRAY_DAEMON_ADDRESS", daemon.addr())
        .start();
    let answers = go_home(&program, 20);
    service.wait_for_events(20, SOON);
    wait_until_said(&program, "again");
    assert!(wait_until(SOON, || !log_lines(&program.stderr(), "honeycomb").is_empty()), "{}", program.stderr());
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(exit.stderr.contains(" ureq"), "the HTTP client has said something, too");
    assert_in_order(&service.events(), &answers);
    let targets: HashSet<_> = service.events().iter().map(|event| text(&event.json(), "target").to_owned()).collect();
    let foreign = targets.iter().filter(|target| *target != "access" && !target.starts_with("cruddur::"));
    assert_eq!(foreign.count(), 0, "{targets:?}");
    // Otherwise every delivery would produce lines for the next one, without end.
    assert!(service.events().len() < 40, "{} lines for 20 requests", service.events().len());
}

#[test]
fn secret_and_token_are_shown_nowhere_whatever_happens() {
    let (service, collector) = (CloudWatch::start(), Collector::ok());
    service.add_key(CloudWatch::KEY_ID, CloudWatch::SECRET, Some(TOKEN));
    // The service, or a proxy in front of it, repeats secrets that it should not even have.
    let told = format!("The security token {TOKEN} is invalid, and so is {}, please check", CloudWatch::SECRET);
    service.play(1, Trick::error("UnrecognizedClientException", &told));
    service.play(1, Trick::error("UnrecognizedClientException", &told));
    service.play(1, Trick::error("InvalidParameterException", &told));
    let toml = format!("{TOML}[honeycomb]\nenabled = true\nschedule_delay = 50\n").replacen("false", "true", 1);
    let program = setup(&service.url())
        .toml(&toml)
        .env("AWS_SESSION_TOKEN", TOKEN)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        // The HTTP client logs everything that it does.
        .env("RUST_LOG", "trace")
        .start();
    go_home(&program, 3);
    wait_until_said(&program, "InvalidParameterException");
    go_home(&program, 3);
    service.wait_for_events(3, SOON);
    for path in ["/telemetry/status", "/telemetry/traces"] {
        assert_no_secret(path, &program.get(path).json().to_string());
    }
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(exit.stderr.contains(" ureq"), "the HTTP client has said something");
    for event in service.events() {
        assert_no_secret("an event", &event.message);
    }
    for request in collector.requests() {
        assert_no_secret("a span", &request.json().to_string());
    }
}

#[test]
fn a_file_of_credentials_that_cannot_be_read_is_named_and_not_shown() {
    let (service, dir) = (CloudWatch::start(), TempDir::new());
    let secret = CloudWatch::SECRET;
    let with = |line: &str| format!("[default]\naws_access_key_id = {}\n{line}\n", CloudWatch::KEY_ID);
    for text in [
        with(&format!("aws_secret_access_key {secret}")),
        with(secret),
        format!("[default\naws_secret_access_key = {secret}\n"),
        format!("aws_secret_access_key = {secret}\n"),
    ] {
        let file = dir.write("broken", &text);
        let program = with_file(&service.url(), &file).start();
        go_home(&program, 3);
        assert!(wait_until(SOON, || !log_lines(&program.stderr(), "cloudwatch").is_empty()), "{text}");
        assert_no_secret("status", &program.backend("cloudwatch").to_string());
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_said_once(&exit.stderr, &[]);
    }
    assert!(service.calls().is_empty());
}

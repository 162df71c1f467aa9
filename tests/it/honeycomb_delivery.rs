//! Delivery to Honeycomb, against a loopback collector: the bytes that are sent, and the result of
//! each batch. Neither requests nor the end of the program ever wait for the collector.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{
    Client, Collector, Exit, Program, Received, Reply, SOON, Setup, attribute, http_date, log_lines, scope_name,
};

const HOME: &str = "/api/activities/home";
const KEY: &str = "a-key-that-nobody-else-may-ever-see-0123456789";
const TOML: &str = "[console]\nenabled = false\n[honeycomb]\nenabled = true\n";
/// Port 1 needs privileges to listen on, so connections to it are refused.
const DEAD: &str = "http://127.0.0.1:1";
/// The maximum time that shutdown may take, flush included.
const END: Duration = Duration::from_secs(6);

fn setup(endpoint: &str) -> Setup {
    Program::setup()
        .toml(TOML)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("HONEYCOMB_API_KEY", KEY)
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
}

/// Requests the home page `times` times. Each request makes one trace of two spans.
fn go_home(program: &Program, times: usize) {
    let mut client = Client::connect(program.addr());
    for _ in 0..times {
        assert_eq!(client.get(HOME).status, 200);
    }
}

/// Makes `batches` batches, one after the other. The next batch begins when all spans of the last
/// one have been delivered, refused or dropped.
fn make_batches(program: &Program, batches: u64) -> Value {
    let mut honeycomb = Value::Null;
    for batch in 1..=batches {
        go_home(program, 1);
        honeycomb = program.wait_for_backend("honeycomb", |honeycomb| {
            ["delivered", "refused", "dropped"].iter().map(|end| count(honeycomb, end)).sum::<u64>() == 2 * batch
        });
    }
    honeycomb
}

fn count(honeycomb: &Value, what: &str) -> u64 {
    honeycomb[what].as_u64().unwrap_or_else(|| panic!("no {what} in {honeycomb:#}"))
}

/// Checks that apply to every test, whatever failed in it.
#[track_caller]
fn assert_ended_well(exit: &Exit) {
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stderr);
    assert!(exit.took < END, "it took {:?} to end", exit.took);
    assert!(!exit.stderr.contains(KEY) && !exit.stdout.contains(KEY), "the key was shown");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

fn unique_span_ids(spans: &[Value]) -> usize {
    spans.iter().map(|span| span["spanId"].as_str().expect("an id")).collect::<HashSet<_>>().len()
}

#[test]
fn a_batch_is_one_post_with_exactly_the_headers_it_needs() {
    let collector = Collector::ok();
    let program = setup(&collector.url()).start();
    make_batches(&program, 1);
    let requests = collector.requests();
    let [request] = &requests[..] else { panic!("{} requests for one batch", requests.len()) };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-honeycomb-team"), Some(KEY));
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(request.header("content-length"), Some(request.raw_body.len().to_string().as_str()));
    let agent = request.header("user-agent").unwrap_or_default();
    assert!(agent.starts_with(&format!("cruddur/{}", env!("CARGO_PKG_VERSION"))), "{agent}");
    for name in ["traceparent", "tracestate", "x-amzn-trace-id", "x-honeycomb-dataset"] {
        assert_eq!(request.header(name), None, "{name}: the exporter's own calls are in no trace");
    }
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), request.headers.len(), "a header was sent twice: {:?}", request.headers);
}

#[test]
fn the_addresses_of_the_specification_lead_where_it_says() {
    let collector = Collector::ok();
    let url = collector.url();
    for (name, value, path) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{url}/"), "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{url}/prefix"), "/prefix/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/as/it/is"), "/as/it/is"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url, "/"),
    ] {
        let program = Program::setup().toml(TOML).env(name, &value).env("OTEL_BSP_SCHEDULE_DELAY", 100).start();
        make_batches(&program, 1);
        let request = collector.requests().pop().expect("a request");
        assert_eq!(request.path, path, "{name}={value}");
        assert_eq!(request.header("x-honeycomb-team"), None, "an empty key is never sent");
    }
}

#[test]
fn headers_of_the_users_choice_are_sent_and_their_values_never_shown() {
    let collector = Collector::ok();
    let program = Program::setup()
        .toml(TOML)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-honeycomb-team={KEY}, X-Extra=a%20b%3D"))
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
        .start();
    make_batches(&program, 1);
    let request = collector.requests().pop().expect("a request");
    assert_eq!(request.header("x-honeycomb-team"), Some(KEY));
    assert_eq!(request.header("x-extra"), Some("a b="));
    assert!(!program.get("/telemetry/status").json().to_string().contains(KEY));
    assert_ended_well(&program.terminate());
}

#[test]
fn gzip_is_sent_only_when_asked_for() {
    for setup in [
        |url: &str| setup(url).env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        |url: &str| setup(url).toml(&format!("{TOML}compression = \"gzip\"\n")),
    ] {
        let collector = Collector::ok();
        let program = setup(&collector.url()).start();
        make_batches(&program, 1);
        let request = collector.requests().pop().expect("a request");
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        assert!(request.raw_body.len() < request.body.len());
        assert_eq!(request.spans().len(), 2);
    }
}

#[test]
fn a_request_is_two_spans_in_the_form_that_receivers_read() {
    let collector = Collector::ok();
    let program = setup(&collector.url()).start();
    let answer = program.get("/api/activities/home?term=x&sig=secret");
    let requests = collector.wait_for(|requests| !requests.is_empty(), SOON);
    let spans = requests[0].spans();
    let [server, inner] = &spans[..] else { panic!("{} spans", spans.len()) };

    for span in &spans {
        assert_eq!(attribute(&span["resource"], "service.name"), Some(&json!("backend-flask")));
        assert_eq!(attribute(&span["resource"], "telemetry.sdk.language"), Some(&json!("rust")));
        assert_ne!(attribute(&span["resource"], "telemetry.sdk.name"), Some(&json!("opentelemetry")));
        assert_eq!(span["traceId"], answer.trace_id());
        assert_eq!(span["status"], json!({}));
        let nanos = |key: &str| span[key].as_str().expect("a string").parse::<u64>().expect("a number in it");
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
    }
    assert_eq!((&server["name"], &server["kind"]), (&json!("GET /api/activities/home"), &json!(2)));
    assert_eq!(server.get("parentSpanId"), None);
    assert_eq!(server["flags"], 0x103);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/activities/home"),
        ("url.path", "/api/activities/home"),
        ("url.query", "term=x&sig=REDACTED"),
        ("url.scheme", "http"),
        ("server.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(server, key), Some(&json!(value)), "{key}: {server:#}");
    }
    assert_eq!(attribute(server, "error.type"), None);

    assert_eq!((&inner["name"], &inner["kind"]), (&json!("home-activities-mock-data"), &json!(1)));
    assert_eq!(scope_name(inner), "home.activities");
    assert_eq!(inner["parentSpanId"], server["spanId"]);
    assert_eq!(attribute(inner, "app.result_length"), Some(&json!("3")));
    assert!(attribute(inner, "app.now").is_some_and(Value::is_string));

    let body = String::from_utf8(requests[0].body.clone()).expect("text");
    assert!(!body.contains("null") && !body.contains("\"attributes\":[]") && !body.contains(": "), "{body}");
}

#[test]
fn a_failure_is_a_span_with_its_exception() {
    for path in ["/api/fail", "/api/fail?how=error"] {
        let collector = Collector::ok();
        let program = setup(&collector.url()).start();
        assert_eq!(program.get(path).status, 500);
        let spans = collector.wait_for(|requests| !requests.is_empty(), SOON)[0].spans();
        let server = spans.iter().find(|span| span["kind"] == 2).expect("a SERVER span");
        assert_eq!(server["status"]["code"], 2, "{server:#}");
        assert_eq!(attribute(server, "error.type"), Some(&json!("500")));
        let events = spans.iter().filter_map(|span| span["events"].as_array()).flatten();
        let exceptions: Vec<_> = events.filter(|event| event["name"] == "exception").collect();
        let [exception] = exceptions[..] else { panic!("{} exceptions in {spans:#?}", exceptions.len()) };
        assert!(
            attribute(exception, "exception.type").is_some() && attribute(exception, "exception.message").is_some()
        );
    }
}

#[test]
fn a_thousand_requests_are_two_thousand_spans_also_when_the_end_comes_right_after() {
    let collector = Collector::ok();
    // The default delay of five seconds, so that most spans are still queued when the signal
    // arrives.
    let program = setup(&collector.url()).env("OTEL_BSP_SCHEDULE_DELAY", 5000).start();
    go_home(&program, 1000);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [2000, 0, 0, 0, 0]);
    let spans = collector.accepted_spans();
    assert_eq!((spans.len(), unique_span_ids(&spans)), (2000, 2000));
    for request in collector.requests() {
        assert!(request.spans().len() <= 512, "{} spans in one batch", request.spans().len());
    }
}

#[test]
fn ctrl_c_flushes_too() {
    let collector = Collector::ok();
    let program = setup(&collector.url()).env("OTEL_BSP_SCHEDULE_DELAY", 5000).start();
    go_home(&program, 3);
    let exit = program.interrupt();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [6, 0, 0, 0, 0]);
    assert_eq!(collector.accepted_spans().len(), 6);
}

#[test]
fn a_2xx_with_an_otlp_response_is_a_success() {
    for (status, body) in [
        (200, "{}"),
        (200, ""),
        (200, r#"{"partialSuccess":{}}"#),
        (200, r#"{"ok":1}"#),
        (200, r#"{"partialSuccess":null}"#),
        (200, r#"{"partialSuccess":{"rejectedSpans":"0"}}"#),
        (202, r#"{"partial_success":{"rejected_spans":0}}"#),
    ] {
        let collector = Collector::start([Reply::text(status, "application/json", body)]);
        let program = setup(&collector.url()).start();
        make_batches(&program, 2);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("honeycomb"), [4, 0, 0, 0, 0], "{body:?}");
        assert_eq!(log_lines(&exit.stderr, "honeycomb"), [""; 0], "{body:?}");
    }
}

#[test]
fn a_partial_success_is_counted_by_its_number_in_either_spelling_and_said_once() {
    let message = "one span had no name";
    for rejected in [json!("1"), json!(1)] {
        let reply =
            Reply::json(200, &json!({ "partialSuccess": { "rejectedSpans": rejected, "errorMessage": message } }));
        let collector = Collector::start([reply]);
        let program = setup(&collector.url()).start();
        let honeycomb = make_batches(&program, 3);
        assert_eq!((count(&honeycomb, "delivered"), count(&honeycomb, "refused")), (3, 3), "{honeycomb:#}");
        assert!(honeycomb["last_error"]["text"].as_str().is_some_and(|text| text.contains(message)), "{honeycomb:#}");
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("honeycomb"), [3, 3, 0, 0, 0]);
        assert_eq!(exit.stderr.matches(message).count(), 1, "{}", exit.stderr);
        assert_eq!(log_lines(&exit.stderr, "honeycomb").len(), 1, "{}", exit.stderr);
        assert_eq!(
            unique_span_ids(&collector.spans()),
            collector.spans().len(),
            "a partial success is never sent again"
        );
    }
}

#[test]
fn a_warning_with_nothing_rejected_loses_nothing_and_is_said_once() {
    let message = "this field is deprecated";
    let reply = Reply::json(200, &json!({ "partialSuccess": { "errorMessage": message } }));
    let collector = Collector::start([reply]);
    let program = setup(&collector.url()).start();
    make_batches(&program, 3);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [6, 0, 0, 0, 0]);
    assert_eq!(exit.stderr.matches(message).count(), 1, "{}", exit.stderr);
}

/// Sends three batches to a collector that always sends the same response.
fn assert_refused(status: u16, reply: Reply, message: &str) {
    let collector = Collector::start([reply]);
    let program = setup(&collector.url()).start();
    let honeycomb = make_batches(&program, 3);
    assert_eq!(count(&honeycomb, "refused"), 6, "{status}: {honeycomb:#}");
    assert_eq!(honeycomb["state"], "on");
    assert_eq!(honeycomb["endpoint"], format!("{}/v1/traces", collector.url()));
    let error = &honeycomb["last_error"];
    assert!(error["text"].as_str().is_some_and(|text| text.contains(message)), "{status}: {honeycomb:#}");
    assert!(error["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{status}: {honeycomb:#}");
    assert!(!honeycomb.to_string().contains(KEY));

    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [0, 6, 0, 0, 0], "{status}");
    assert_eq!(exit.stderr.matches(message).count(), 1, "{status}: the message, once:\n{}", exit.stderr);
    let lines = log_lines(&exit.stderr, "honeycomb");
    let [line] = lines[..] else { panic!("{status}: {} lines for one kind of failure: {lines:#?}", lines.len()) };
    for part in [" WARN ", message, &status.to_string(), &format!("{}/v1/traces", collector.url())] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let spans = collector.spans();
    // A batch that was too large may be sent again in smaller pieces.
    if status != 413 {
        assert_eq!(spans.len(), unique_span_ids(&spans), "{status}: what is refused is not sent again");
    }
}

#[test]
fn a_400_is_counted_said_once_and_not_sent_again() {
    let message = "cannot parse the request";
    assert_refused(400, Reply::json(400, &json!({ "code": 3, "message": message })), message);
}

#[test]
fn a_401_shows_what_the_server_says() {
    let message = "unknown API key - check your credentials";
    assert_refused(401, Reply::json(401, &json!({ "message": message })), message);
}

#[test]
fn a_404_shows_the_address_and_a_text_that_is_not_json() {
    assert_refused(404, Reply::text(404, "text/plain", "404 page not found"), "404 page not found");
}

#[test]
fn a_413_is_counted_and_said_once() {
    let message = "request body too large";
    assert_refused(413, Reply::json(413, &json!({ "message": message })), message);
}

#[test]
fn a_500_is_not_one_of_those_that_may_be_sent_again() {
    let message = "trouble inside";
    assert_refused(500, Reply::json(500, &json!({ "message": message })), message);
}

#[test]
fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = Collector::ok();
    let location = format!("{}/v1/traces", elsewhere.url());
    let collector = Collector::start([Reply::text(307, "text/plain", "").with_header("Location", &location)]);
    let program = setup(&collector.url()).start();
    let honeycomb = make_batches(&program, 2);
    assert_eq!(count(&honeycomb, "refused"), 4, "{honeycomb:#}");
    assert!(elsewhere.requests().is_empty());
    assert_ended_well(&program.terminate());
}

#[test]
fn a_key_that_the_server_repeats_is_not_shown() {
    let reply = Reply::json(401, &json!({ "message": format!("unknown API key {KEY}, check it") }));
    let collector = Collector::start([reply]);
    let program = setup(&collector.url()).start();
    make_batches(&program, 1);
    for path in ["/telemetry/status", "/telemetry/traces"] {
        assert!(!program.get(path).json().to_string().contains(KEY), "{path}");
    }
    assert_ended_well(&program.terminate());
}

/// One batch whose first attempt is put off. No span may be lost, and none may be sent early.
fn put_off_once(reply: Reply) -> (Program, Vec<Received>) {
    let collector = Collector::start([reply, Reply::ok()]);
    let program = setup(&collector.url()).start();
    go_home(&program, 1);
    collector.wait_for(|requests| requests.len() == 1, SOON);
    // These requests arrive while the sender waits.
    go_home(&program, 2);
    let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| count(honeycomb, "delivered") == 6);
    assert_eq!((count(&honeycomb, "refused"), count(&honeycomb, "dropped")), (0, 0), "{honeycomb:#}");
    let spans = collector.accepted_spans();
    assert_eq!((spans.len(), unique_span_ids(&spans)), (6, 6));
    let requests = collector.requests();
    assert_eq!(requests[0].body, requests[1].body, "the same batch is sent again");
    (program, requests)
}

#[test]
fn a_429_with_seconds_holds_the_sender_for_so_long() {
    let (program, requests) =
        put_off_once(Reply::json(429, &json!({ "message": "slow down" })).with_header("Retry-After", "2"));
    let waited = requests[1].arrived - requests[0].arrived;
    assert!(waited >= Duration::from_millis(1990), "{waited:?}");
    let exit = program.terminate();
    assert_eq!(exit.stderr.matches("slow down").count(), 1, "{}", exit.stderr);
    assert_eq!(exit.counts("honeycomb"), [6, 0, 0, 0, 0]);
}

#[test]
fn a_429_with_a_date_holds_the_sender_until_then() {
    let now = SystemTime::now();
    let unix = now.duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() + 3;
    let until = Instant::now() + (UNIX_EPOCH + Duration::from_secs(unix)).duration_since(now).expect("it is ahead");
    let reply = Reply::json(429, &json!({ "detail": "rate limited" })).with_header("Retry-After", &http_date(unix));
    let (program, requests) = put_off_once(reply);
    assert!(requests[0].arrived < until, "the machine is too slow for this test");
    assert!(requests[1].arrived >= until - Duration::from_millis(10), "{:?} too early", until - requests[1].arrived);
    assert_eq!(program.terminate().stderr.matches("rate limited").count(), 1);
}

#[test]
fn a_503_is_tried_again_after_a_second_and_the_recovery_is_said() {
    let (program, requests) = put_off_once(Reply::json(503, &json!({ "message": "back soon" })));
    let waited = requests[1].arrived - requests[0].arrived;
    assert!(waited >= Duration::from_millis(790), "{waited:?}");
    let exit = program.terminate();
    assert_ended_well(&exit);
    let lines = log_lines(&exit.stderr, "honeycomb");
    let [trouble, recovery] = lines[..] else { panic!("{} lines: {lines:#?}", lines.len()) };
    assert!(trouble.contains(" WARN ") && trouble.contains("back soon"), "{trouble}");
    assert!(recovery.contains("again"), "{recovery}");
}

#[test]
fn a_connection_that_is_reset_loses_nothing() {
    let (program, _) = put_off_once(Reply::Reset);
    assert_eq!(program.terminate().counts("honeycomb"), [6, 0, 0, 0, 0]);
}

#[test]
fn a_budget_that_is_used_up_drops_the_batch_and_goes_on() {
    let collector = Collector::start([Reply::json(503, &json!({ "message": "back never" }))]);
    let program = setup(&collector.url()).env("OTEL_EXPORTER_OTLP_TIMEOUT", 300).start();
    let honeycomb = make_batches(&program, 3);
    assert_eq!(count(&honeycomb, "dropped"), 6, "{honeycomb:#}");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.stderr.matches("back never").count(), 1, "{}", exit.stderr);
    assert_eq!(exit.counts("honeycomb"), [0, 0, 6, 0, 0]);
}

/// A destination that never accepts a batch: requests are not affected, every span is counted, and
/// one log line reports it.
fn assert_harmless(endpoint: &str) {
    let program = setup(endpoint).env("OTEL_EXPORTER_OTLP_TIMEOUT", 300).start();
    let mut client = Client::connect(program.addr());
    for _ in 0..100 {
        let since = Instant::now();
        assert_eq!(client.get(HOME).status, 200);
        assert!(since.elapsed() < Duration::from_millis(500), "a request took {:?}", since.elapsed());
    }
    let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| {
        count(honeycomb, "refused") + count(honeycomb, "dropped") == 200 && count(honeycomb, "queued") == 0
    });
    assert_eq!(count(&honeycomb, "delivered"), 0, "{honeycomb:#}");
    assert!(honeycomb["last_error"]["text"].is_string(), "{honeycomb:#}");
    // After more batches there is still one line.
    go_home(&program, 1);
    program.wait_for_backend("honeycomb", |honeycomb| count(honeycomb, "refused") + count(honeycomb, "dropped") == 202);
    let exit = program.terminate();
    assert_ended_well(&exit);
    let [delivered, refused, dropped, sampled_out, queued] = exit.counts("honeycomb");
    assert_eq!((delivered, refused + dropped, sampled_out, queued), (0, 202, 0, 0));
    assert_eq!(log_lines(&exit.stderr, "honeycomb").len(), 1, "{}", exit.stderr);
}

#[test]
fn a_dead_port_harms_nobody() {
    assert_harmless(DEAD);
}

#[test]
fn a_collector_that_hangs_harms_nobody() {
    assert_harmless(&Collector::start([Reply::Hang]).url());
}

#[test]
fn a_collector_that_hangs_up_harms_nobody() {
    assert_harmless(&Collector::start([Reply::Reset]).url());
}

#[test]
fn a_collector_that_talks_nonsense_harms_nobody() {
    assert_harmless(&Collector::start([Reply::Garbage]).url());
}

#[test]
fn a_collector_that_hangs_keeps_nobody_from_ending() {
    let collector = Collector::start([Reply::Hang]);
    // The default timeout of ten seconds, which is longer than shutdown may take.
    let program = setup(&collector.url()).start();
    go_home(&program, 5);
    collector.wait_for(|requests| !requests.is_empty(), SOON);
    go_home(&program, 5);
    let exit = program.terminate();
    assert_ended_well(&exit);
    let [delivered, refused, dropped, sampled_out, queued] = exit.counts("honeycomb");
    assert_eq!((delivered, refused + dropped + queued, sampled_out), (0, 20, 0), "{}", exit.stderr);
}

#[test]
fn a_sender_that_waits_to_try_again_keeps_nobody_from_ending() {
    for reply in [Reply::json(503, &json!({})), Reply::json(429, &json!({})).with_header("Retry-After", "3600")] {
        let collector = Collector::start([reply]);
        let program = setup(&collector.url()).start();
        go_home(&program, 1);
        collector.wait_for(|requests| !requests.is_empty(), SOON);
        let exit = program.terminate();
        assert_ended_well(&exit);
        let [delivered, refused, dropped, _, queued] = exit.counts("honeycomb");
        assert_eq!((delivered, refused + dropped + queued), (0, 2), "{}", exit.stderr);
    }
}

#[test]
fn a_full_queue_drops_and_counts_and_memory_stays_flat() {
    let collector = Collector::start([Reply::Hang]);
    let program =
        setup(&collector.url()).env("OTEL_BSP_MAX_QUEUE_SIZE", 64).env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 16).start();
    go_home(&program, 500);
    let before = program.rss_kb();
    go_home(&program, 1500);
    let after = program.rss_kb();
    assert!(after < before + 4096, "from {before} kB to {after} kB");
    let honeycomb = program.backend("honeycomb");
    let all: u64 =
        ["queued", "in_flight", "delivered", "refused", "dropped"].iter().map(|end| count(&honeycomb, end)).sum();
    assert_eq!(all, 4000, "{honeycomb:#}");
    assert!(count(&honeycomb, "queued") <= 64, "{honeycomb:#}");
    assert!(count(&honeycomb, "dropped") > 3000, "{honeycomb:#}");
    assert!(
        log_lines(&program.stderr(), "honeycomb").len() <= 2,
        "one line for the queue, one for the collector:\n{}",
        program.stderr()
    );
}

#[test]
fn without_a_key_honeycomb_waits_and_says_what_is_missing() {
    for key in [None, Some("")] {
        let mut setup = Program::setup().toml(TOML);
        if let Some(key) = key {
            setup = setup.env("HONEYCOMB_API_KEY", key);
        }
        let program = setup.start();
        let honeycomb = program.backend("honeycomb");
        assert_eq!(honeycomb["state"], "waiting", "{honeycomb:#}");
        assert!(
            honeycomb["reason"].as_str().is_some_and(|reason| reason.contains("HONEYCOMB_API_KEY")),
            "{honeycomb:#}"
        );
        program.wait_for_stderr("HONEYCOMB_API_KEY");
        go_home(&program, 2);
        let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| count(honeycomb, "not_sent") == 4);
        assert_eq!(count(&honeycomb, "queued"), 0, "{honeycomb:#}");
        assert_ended_well(&program.terminate());
    }
}

#[test]
fn what_the_sampler_leaves_out_is_counted_and_not_sent() {
    let collector = Collector::ok();
    let program = setup(&collector.url()).env("OTEL_TRACES_SAMPLER", "always_off").start();
    go_home(&program, 3);
    let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| count(honeycomb, "sampled_out") == 6);
    assert_eq!(count(&honeycomb, "delivered"), 0, "{honeycomb:#}");
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [0, 0, 0, 6, 0]);
    assert!(collector.requests().is_empty());
}

#[test]
fn the_status_names_the_service_the_version_and_the_requests() {
    let program = Program::start();
    go_home(&program, 3);
    let status = program.get("/telemetry/status").json();
    assert_eq!(status["service_name"], "backend-flask");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["started_at"].is_string());
    assert!(status["requests"].as_u64() >= Some(3), "{status:#}");
    assert_eq!(status["backends"]["console"]["state"], "on");
    assert_eq!(status["backends"]["honeycomb"]["state"], "off");
    assert_eq!(status["backends"]["honeycomb"]["unit"], "spans");
    assert!(status["backends"]["honeycomb"]["last_error"].is_null());
}

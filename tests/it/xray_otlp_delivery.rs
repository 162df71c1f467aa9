//! Delivery to X-Ray's OTLP endpoint, against a loopback endpoint that is as strict as the real one.
//! Every span arrives once, whatever the endpoint answers first. No secret is shown anywhere.

use std::fs;

use serde_json::Value;

use crate::support::aws::{NEW_KEY_ID, NEW_SECRET, TOKEN, assert_ended_well, assert_no_secret};
use crate::support::{Client, CloudWatch, Collector, Program, SOON, Setup, TempDir, Trick, XRayEndpoint, log_lines};

const HOME: &str = "/api/activities/home";
const TOML: &str = "[console]\nenabled = false\n[xray_otlp]\nenabled = true\nschedule_delay = 50\n";

fn start_endpoint() -> XRayEndpoint {
    XRayEndpoint::start(CloudWatch::KEY_ID, CloudWatch::SECRET)
}

fn anonymous(endpoint: &XRayEndpoint) -> Setup {
    Program::setup()
        .toml(TOML)
        .env("AWS_ENDPOINT_URL_XRAY", endpoint.url())
        .env("AWS_REGION", CloudWatch::REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

fn setup(endpoint: &XRayEndpoint) -> Setup {
    anonymous(endpoint).env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID).env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
}

/// The same with a temporary key.
fn with_token(endpoint: &XRayEndpoint) -> Setup {
    anonymous(endpoint)
        .env("AWS_ACCESS_KEY_ID", NEW_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", NEW_SECRET)
        .env("AWS_SESSION_TOKEN", TOKEN)
}

fn go_home(program: &Program, times: usize) {
    let mut client = Client::connect(program.addr());
    for _ in 0..times {
        assert_eq!(client.get(HOME).status, 200);
    }
}

/// The ids of the spans, each once.
#[track_caller]
fn assert_each_once(spans: &[Value]) {
    let mut ids: Vec<_> = spans.iter().map(|span| span["spanId"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "a span came twice");
}

#[test]
fn a_thousand_requests_are_two_thousand_spans_each_of_which_arrives_once() {
    let endpoint = start_endpoint();
    for compression in ["none", "gzip"] {
        let before = endpoint.spans().len();
        let program = setup(&endpoint).toml(&format!("{TOML}compression = \"{compression}\"\n")).start();
        go_home(&program, 1000);
        endpoint.wait_for_spans(before + 2000, SOON);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("xray_otlp"), [2000, 0, 0, 0, 0]);
        assert_eq!(log_lines(&exit.stderr, "xray_otlp"), [""; 0], "all was well");
        assert_eq!(endpoint.spans().len(), before + 2000);
    }
    assert_each_once(&endpoint.spans());
    assert!(endpoint.calls().iter().all(|call| call.status == Some(200)));
}

#[test]
fn no_span_is_lost_when_the_program_is_told_to_end_at_once() {
    let endpoint = start_endpoint();
    // The batches wait longer than the test: only the end of the program sends the last ones.
    let program = setup(&endpoint).toml(&TOML.replace("= 50", "= 60000")).start();
    go_home(&program, 1000);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("xray_otlp"), [2000, 0, 0, 0, 0]);
    assert_eq!(endpoint.spans().len(), 2000);
    assert_each_once(&endpoint.spans());
}

#[test]
fn the_bytes_are_those_of_honeycomb_and_both_can_be_on() {
    let (endpoint, collector) = (start_endpoint(), Collector::ok());
    let honeycomb = "[honeycomb]\nenabled = true\nschedule_delay = 60000\n";
    let program = setup(&endpoint)
        .toml(&format!("{}{honeycomb}", TOML.replace("= 50", "= 60000")))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .start();
    go_home(&program, 20);
    assert_ended_well(&program.terminate());
    let (signed, plain) = (endpoint.calls().remove(0), collector.requests().remove(0));
    assert_eq!(signed.body, plain.body);
    assert_eq!(collector.spans().len(), 40);
}

#[test]
fn a_call_has_exactly_the_headers_it_needs_with_a_token_and_with_gzip() {
    let endpoint = start_endpoint();
    endpoint.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN));
    let program = with_token(&endpoint).toml(&format!("{TOML}compression = \"gzip\"\n")).start();
    go_home(&program, 1);
    endpoint.wait_for_spans(2, SOON);
    let call = endpoint.calls().remove(0);
    let mut names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-amz-date",
        "x-amz-security-token",
    ];
    names.retain(|name| *name != "accept-encoding");
    assert_eq!(names, expected);
    let signed = "SignedHeaders=content-encoding;content-type;host;x-amz-date;x-amz-security-token,";
    assert!(call.header("authorization").is_some_and(|value| value.contains(signed)));
    assert!(call.raw_body.starts_with(&[0x1f, 0x8b]) && call.body.starts_with(b"{\"resourceSpans\""));
    assert_ended_well(&program.terminate());
}

/// Sends one trace while `refuse` holds, checks the one sentence that is logged, then lets `allow` end
/// it. The spans arrive.
#[track_caller]
fn waits_until_allowed(
    setup: impl Fn(&XRayEndpoint) -> Setup,
    refuse: impl Fn(&XRayEndpoint),
    allow: impl Fn(&XRayEndpoint),
    parts: &[&str],
) {
    let endpoint = start_endpoint();
    refuse(&endpoint);
    let program = setup(&endpoint).start();
    go_home(&program, 2);
    program.wait_for_stderr(" xray_otlp: ");
    let lines = program.stderr();
    let [line] = log_lines(&lines, "xray_otlp")[..] else { panic!("not one line:\n{lines}") };
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert!(line.contains("; next: "), "{line}");
    assert_no_secret("the page", &program.get("/telemetry/deliveries").json().to_string());
    assert_no_secret("the status", &program.get("/telemetry/status").json().to_string());
    allow(&endpoint);
    endpoint.wait_for_spans(4, SOON);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("xray_otlp"), [4, 0, 0, 0, 0]);
    assert_each_once(&endpoint.spans());
}

#[test]
fn t43_without_transaction_search_the_sentence_has_the_command_and_the_spans_wait() {
    waits_until_allowed(
        setup,
        |endpoint| endpoint.set_search(false),
        |endpoint| endpoint.set_search(true),
        &[
            "InvalidRequestException (HTTP 400) from http://127.0.0.1:",
            "Trace Segment Destination",
            "turn Transaction Search on: aws xray update-trace-segment-destination --destination CloudWatchLogs",
        ],
    );
}

#[test]
fn a_missing_permission_is_named() {
    waits_until_allowed(
        setup,
        |endpoint| endpoint.set_denied(true),
        |endpoint| endpoint.set_denied(false),
        &[
            "AccessDeniedException (HTTP 403)",
            "allow xray:PutTraceSegments, xray:PutSpans and",
            "policy-xray-otlp.json",
        ],
    );
}

#[test]
fn an_unknown_key_is_said_and_used_once_it_is_known() {
    waits_until_allowed(
        with_token,
        |_| {},
        |endpoint| endpoint.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN)),
        &["UnrecognizedClientException (HTTP 403)", "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN"],
    );
}

#[test]
fn a_wrong_secret_is_a_wrong_signature() {
    waits_until_allowed(
        setup,
        |endpoint| endpoint.add_key(CloudWatch::KEY_ID, NEW_SECRET, None),
        |endpoint| endpoint.add_key(CloudWatch::KEY_ID, CloudWatch::SECRET, None),
        &["InvalidSignatureException (HTTP 403)", "check AWS_SECRET_ACCESS_KEY, the region and this machine's clock"],
    );
}

#[test]
fn every_spelling_of_throttling_and_every_temporary_error_is_retried() {
    for trick in [
        Trick::Error(429, "", "Too many requests".to_owned()),
        Trick::Error(429, "ThrottledException", "Rate exceeded".to_owned()),
        Trick::error("ThrottlingException", "Rate exceeded"),
        Trick::Error(503, "SlowDown", "Please reduce your request rate".to_owned()),
        Trick::Error(500, "InternalFailure", String::new()),
        Trick::Answer(502, "<html>Bad Gateway</html>"),
        Trick::Reset,
    ] {
        let endpoint = start_endpoint();
        let what = format!("{trick:?}");
        endpoint.play(1, trick);
        let program = setup(&endpoint).start();
        go_home(&program, 1);
        assert_eq!(endpoint.wait_for_spans(2, SOON).len(), 2, "{what}");
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("xray_otlp"), [2, 0, 0, 0, 0], "{what}");
    }
}

#[test]
fn a_partial_success_a_request_that_is_too_large_and_a_log_in_page_are_counted_apart() {
    for (trick, counts, says) in [
        (
            Trick::WorkAndAnswer(r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#),
            [1, 1, 0, 0, 0],
            "rejected 1 spans: too old",
        ),
        (
            Trick::Error(413, "", "Request entity too large".to_owned()),
            [0, 2, 0, 0, 0],
            "lower max_export_batch_size in [xray_otlp]; the request had",
        ),
        (
            Trick::error("InvalidRequestException", "a span is too old"),
            [0, 2, 0, 0, 0],
            "a span is too old; next: correct what the endpoint names",
        ),
        (Trick::Answer(200, "<html>Please log in</html>"), [0, 0, 0, 0, 0], "unexpected web page from"),
    ] {
        let endpoint = start_endpoint();
        endpoint.play(1, trick);
        let program = setup(&endpoint).start();
        go_home(&program, 1);
        program.wait_for_stderr(says);
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.counts("xray_otlp"), counts, "{}", exit.stderr);
        assert_eq!(log_lines(&exit.stderr, "xray_otlp").len(), 1, "{}", exit.stderr);
    }
}

#[test]
fn a_wrong_clock_is_corrected_for_signatures_and_for_the_times_of_spans() {
    // Three hours: without the correction, the endpoint refuses spans that are two hours ahead. It
    // refuses those that were encoded before the first answer.
    for ahead in [3 * 3600, -3 * 3600] {
        let endpoint = start_endpoint();
        endpoint.set_clock(ahead);
        let program = setup(&endpoint).start();
        go_home(&program, 1);
        program.wait_for_stderr("clock skew: this machine's clock is ");
        go_home(&program, 2);
        program.wait_for_backend("xray_otlp", |backend| backend["delivered"].as_u64() >= Some(4));
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert_eq!(exit.stderr.matches("clock skew").count(), 1);
    }
}

#[test]
fn new_credentials_of_a_file_are_used_when_the_old_ones_expire() {
    let endpoint = start_endpoint();
    let dir = TempDir::new();
    let write = |id: &str, secret: &str| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        let path = dir.path().join("credentials");
        fs::rename(dir.write("credentials.new", &text), &path).expect("a file for the test");
        path
    };
    let path = write(CloudWatch::KEY_ID, CloudWatch::SECRET);
    let program = anonymous(&endpoint).env("AWS_SHARED_CREDENTIALS_FILE", path.display()).start();
    go_home(&program, 1);
    endpoint.wait_for_spans(2, SOON);
    endpoint.expire_key(CloudWatch::KEY_ID);
    endpoint.add_key(NEW_KEY_ID, NEW_SECRET, None);
    write(NEW_KEY_ID, NEW_SECRET);
    go_home(&program, 1);
    endpoint.wait_for_spans(4, SOON);
    assert_eq!(endpoint.calls().last().expect("a call").key_id(), NEW_KEY_ID);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("xray_otlp"), [4, 0, 0, 0, 0]);
}

#[test]
fn a_batch_above_five_megabytes_is_sent_in_several_requests() {
    let endpoint = start_endpoint();
    let toml = TOML.replace("= 50", "= 2500\nmax_export_batch_size = 20000\nmax_queue_size = 20000");
    let program = setup(&endpoint).toml(&toml).start();
    let mut client = Client::connect(program.addr());
    // Each quotation mark is two bytes in JSON.
    let agent = "\"".repeat(14_000);
    for _ in 0..250 {
        assert_eq!(client.request("GET", HOME, &[("User-Agent", &agent)], b"").status, 200);
    }
    endpoint.wait_for_spans(500, 4 * SOON);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("xray_otlp"), [500, 0, 0, 0, 0]);
    let calls = endpoint.calls();
    assert!(calls.len() > 1 && calls.iter().any(|call| call.body.len() > 2_000_000));
    assert!(calls.iter().all(|call| call.status == Some(200)));
    assert_each_once(&endpoint.spans());
}

#[test]
fn an_endpoint_that_hangs_does_not_hold_the_end_of_the_program() {
    let endpoint = start_endpoint();
    endpoint.play(usize::MAX, Trick::Hang);
    let program = setup(&endpoint).start();
    go_home(&program, 1);
    endpoint.wait_for_calls(1, SOON);
    let exit = program.terminate();
    assert_ended_well(&exit);
    let [delivered, _, dropped, ..] = exit.counts("xray_otlp");
    assert_eq!((delivered, dropped), (0, 2));
    endpoint.behave();
    endpoint.hang_up();
}

#[test]
fn the_deliveries_have_the_canonical_request_and_the_string_to_sign_without_a_secret() {
    let endpoint = start_endpoint();
    endpoint.add_key(NEW_KEY_ID, NEW_SECRET, Some(TOKEN));
    let program = with_token(&endpoint).start();
    let trace_id = Client::connect(program.addr()).get(HOME).trace_id().to_owned();
    endpoint.wait_for_spans(2, SOON);
    program.wait_for_backend("xray_otlp", |backend| backend["delivered"] == 2);
    let answer = program.get("/telemetry/deliveries/xray_otlp-1");
    assert_no_secret("the page", &answer.json().to_string());
    let text = answer.json().to_string();
    for part in ["POST\\n/v1/traces\\n\\ncontent-type:application/json\\n", "/us-east-1/xray/aws4_request\\n"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let payload = endpoint.calls().remove(0).body;
    let trace = program.get(&format!("/telemetry/traces/{trace_id}")).json();
    let dialect = &trace["requests"][0]["dialects"]["xray_otlp"][0];
    assert_eq!(dialect.as_str().map(str::as_bytes), Some(&payload[..]), "{trace:#}");
    assert_ended_well(&program.terminate());
}

#[test]
fn two_ways_to_x_ray_are_warned_about_once() {
    let endpoint = start_endpoint();
    let toml = format!("{TOML}[xray]\nenabled = true\n[cloudwatch]\nenabled = true\n");
    let setup = setup(&endpoint).toml(&toml).env("AWS_ENDPOINT_URL", endpoint.url());
    let program = setup.env("AWS_DEFAULT_REGION", "eu-west-1").start();
    let said = program.stderr();
    assert_eq!(said.matches("every trace arrives twice").count(), 1, "{said}");
    assert_eq!(said.matches("region mismatch").count(), 1, "{said}");
}

#[test]
fn the_check_sends_a_signed_trace_and_prints_what_was_answered() {
    let endpoint = start_endpoint();
    let url = endpoint.url();
    let check = |secret: &str| {
        let env = [
            ("AWS_ENDPOINT_URL_XRAY", url.as_str()),
            ("AWS_REGION", CloudWatch::REGION),
            ("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ];
        Program::run_to_end(&["check"], &env, Some(TOML))
    };
    let exit = check(CloudWatch::SECRET);
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stdout);
    assert!(exit.stdout.contains("xray_otlp  accepted"), "{}", exit.stdout);
    assert_eq!(endpoint.spans().len(), 2);
    let exit = check(NEW_SECRET);
    assert_eq!(exit.status.code(), Some(1));
    let said = ["InvalidSignatureException (HTTP 403)", "check AWS_SECRET_ACCESS_KEY"];
    assert!(said.iter().all(|part| exit.stdout.contains(part)), "{}", exit.stdout);
    assert_no_secret("the check", &exit.stdout);
}

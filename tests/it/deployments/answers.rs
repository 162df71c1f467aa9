//! Kind 1: a success that does not come from the expected service.

use serde_json::json;

use super::{HOME, HONEYCOMB, check};
use crate::support::told::{start, status_says, told_when_sent};
use crate::support::{CloudWatch, Collector, Program, Reply, SOON, Trick, XRayDaemon, log_lines, wait_until};

/// A response to a batch of two spans, with the counts that it leads to (delivered, refused,
/// unconfirmed) and the sentence, in which URL is the address. No sentence means that nothing is
/// said.
fn batches() -> Vec<(Reply, [u64; 3], &'static str)> {
    let json = |text: &str| Reply::text(200, "application/json", text);
    const NEXT: &str = "next: check host, port and path, and whether a proxy answers instead";
    let foreign = |why: &str| -> &'static str {
        format!("HTTP 200 OK from URL/v1/traces, but not from a receiver of OTLP: {why}; {NEXT}").leak()
    };
    vec![
        (json(""), [2, 0, 0], ""),
        (json("{}"), [2, 0, 0], ""),
        (json("\u{feff}{}\r\n"), [2, 0, 0], ""),
        (json(r#"{"ok":1,"somethingNew":{}}"#), [2, 0, 0], ""),
        (json(r#"{"partial_success":{"rejected_spans":"0"}}"#), [2, 0, 0], ""),
        (Reply::text(204, "text/plain", ""), [2, 0, 0], ""),
        (Reply::text(200, "application/x-protobuf", "\n\u{0}"), [2, 0, 0], ""),
        (
            json(r#"{"partial_success":{"rejected_spans":"1","error_message":"too old"}}"#),
            [1, 1, 0],
            "partial success: URL/v1/traces rejected 1 spans: too old; next: correct what the receiver names",
        ),
        (
            Reply::text(200, "application/x-protobuf", "\n\u{6}\u{8}\u{1}\u{12}\u{2}no"),
            [1, 1, 0],
            "partial success: URL/v1/traces rejected 1 spans: no; next: ",
        ),
        (
            Reply::text(200, "text/html", "<!doctype html><title>Log in</title>"),
            [0, 0, 2],
            "unexpected web page from URL/v1/traces, which is not a receiver of telemetry; next: check host, port and path",
        ),
        (json(r#"{"code":3,"message":"bad request"}"#), [0, 0, 2], foreign("its body is an error (bad request)")),
        (json(r#"{"error":{"type":"x"}}"#), [0, 0, 2], foreign("its body is an error")),
        (json("[]"), [0, 0, 2], foreign("its body is not a JSON object ([])")),
        (json("OK"), [0, 0, 2], foreign("its body is not JSON (OK)")),
        (json(r#"{"partialSuccess":"no"}"#), [0, 0, 2], foreign("its partialSuccess is not an object")),
        (
            json("xyz").with_header("Content-Encoding", "br"),
            [0, 0, 2],
            foreign("its body has Content-Encoding: br, which was not asked for (xyz)"),
        ),
    ]
}

#[test]
fn t36_a_success_that_is_no_otlp_response_is_said_and_counted_apart() {
    for (reply, [delivered, refused, unconfirmed], sentence) in batches() {
        let shown = format!("{reply:?}");
        let collector = Collector::start([reply]);
        let url = collector.url();
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
        let program = start(HONEYCOMB, &env);
        program.get(HOME);
        let counts = json!({ "delivered": delivered, "refused": refused, "unconfirmed": unconfirmed });
        let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| {
            ["delivered", "refused", "unconfirmed"].iter().all(|count| honeycomb[count] == counts[count])
        });
        assert_eq!((&honeycomb["dropped"], collector.requests().len()), (&json!(0), 1), "sent once: {shown}");
        let checked = check(HONEYCOMB, &env);
        if sentence.is_empty() {
            assert_eq!(log_lines(&program.stderr(), "honeycomb"), [""; 0], "{shown}");
            assert_eq!(checked.status.code(), Some(0), "{shown}: {}", checked.stdout);
        } else {
            let sentence = sentence.replace("URL", &url);
            program.wait_for_stderr(&sentence);
            assert!(status_says(&program, &sentence), "{shown}");
            assert!(checked.stdout.contains(&sentence), "{shown}: {}", checked.stdout);
            assert_eq!(checked.status.code(), Some(1), "{shown}: {}", checked.stdout);
        }
    }
}

#[test]
fn t36_the_end_and_the_page_count_what_another_program_answered() {
    let collector = Collector::start([Reply::text(202, "text/plain", "accepted")]);
    let program = start(HONEYCOMB, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]);
    for spans in [2, 4] {
        program.get(HOME);
        program.wait_for_backend("honeycomb", |honeycomb| honeycomb["unconfirmed"] == spans);
    }
    let deliveries = program.get("/telemetry/deliveries").json().to_string();
    assert!(deliveries.contains(r#""unconfirmed""#), "{deliveries}");
    let exit = program.terminate();
    assert!(exit.stderr.contains("0 sampled out, 4 unconfirmed, of 4 spans"), "{}", exit.stderr);
    assert_eq!(log_lines(&exit.stderr, "honeycomb").len(), 1, "said once: {}", exit.stderr);
}

#[test]
fn t36_rules_that_are_no_rules_are_said() {
    const XRAY: &str = "[xray]\nenabled = true\nschedule_delay = 50\n";
    let json = |text: &str| Reply::text(200, "application/json", text);
    let local = "requests are sampled by the local rule; next: check";
    for (reply, sentence) in [
        (
            json(r#"{"message":"hello"}"#),
            format!("no SamplingRuleRecords in the response of URL/GetSamplingRules; {local}"),
        ),
        (
            json("<html>"),
            format!("invalid JSON from URL/GetSamplingRules (expected value at line 1 column 1); {local}"),
        ),
        (
            Reply::text(404, "text/plain", "404 page not found"),
            format!(
                "HTTP 404 Not Found from URL/GetSamplingRules; {local} that the X-Ray daemon listens on this TCP port; an \
                 OpenTelemetry Collector needs its awsproxy extension"
            ),
        ),
    ] {
        let daemon = XRayDaemon::start();
        daemon.answer_rules_with([reply]);
        let (address, url) = (daemon.addr().to_string(), format!("http://{}", daemon.addr()));
        told_when_sent(XRAY, &[("AWS_XRAY_DAEMON_ADDRESS", &address)], &sentence.replace("URL", &url));
    }
}

#[test]
fn t36_request_counts_that_x_ray_does_not_accept_are_said() {
    const OFTEN: &str = "[xray]\nenabled = true\nschedule_delay = 50\nrules_interval = 100\ntargets_interval = 100\n";
    let rule = json!({
        "RuleName": "R", "ResourceARN": "*", "Priority": "1", "FixedRate": "1.0", "ReservoirSize": 0, "ServiceName": "*",
        "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*", "Version": 1,
    });
    for (reply, sentence) in [
        (
            json!({ "SamplingTargetDocuments": [], "UnprocessedStatistics": [{ "RuleName": "R", "ErrorCode": "Gone" }] }),
            "X-Ray did not accept the request counts of the rules R (Gone); next: nothing to do if a rule was deleted",
        ),
        (json!({ "message": "hello" }), "no SamplingTargetDocuments in the response of "),
    ] {
        let daemon = XRayDaemon::start();
        daemon.set_rules(std::slice::from_ref(&rule));
        daemon.answer_targets_with(Reply::json(200, &reply));
        let program = start(OFTEN, &[("AWS_XRAY_DAEMON_ADDRESS", &daemon.addr().to_string())]);
        // Numbers that are written as text are numbers.
        program.wait_for_backend("xray", |xray| {
            xray["sampling"].as_str().is_some_and(|text| text.contains("R (0 per second"))
        });
        let said = wait_until(SOON, || {
            program.get(HOME);
            program.stderr().contains(sentence)
        });
        assert!(said, "{sentence}: {}", program.stderr());
    }
}

#[test]
fn t36_a_log_service_that_says_200_and_means_no_has_stored_nothing() {
    for (body, sentence) in [
        (
            r#"{"code":3,"message":"no"}"#,
            "HTTP 200 OK from URL: not a response of CloudWatch Logs; next: nothing to do",
        ),
        ("[]", "HTTP 200 OK from URL: not a response of CloudWatch Logs; next: nothing to do"),
        (
            r#"{"__type":"SomethingNewException","message":"no"}"#,
            "SomethingNewException (HTTP 200) from URL: no; next: look up this error code, which cruddur does not know",
        ),
    ] {
        let service = CloudWatch::start();
        service.play(1, Trick::Answer(200, body));
        let program = super::log_services::start(&service);
        program.get(HOME);
        program.wait_for_stderr(&sentence.replace("URL", &service.url()));
        service.wait_for_events(1, SOON);
        assert_eq!(program.terminate().counts("cloudwatch"), [1, 0, 0, 0, 0], "{body}");
    }
}

#[test]
fn t36_an_endpoint_for_credentials_that_answers_with_a_page_is_said() {
    let credentials = json!({
        "AccessKeyId": CloudWatch::KEY_ID, "SecretAccessKey": CloudWatch::SECRET, "Token": "", "Expiration": "2099-01-01T00:00:00Z",
    });
    for (reply, sentence) in [
        (Reply::text(200, "text/html", "<html>"), "invalid JSON in the response: container endpoint"),
        (
            Reply::json(200, &json!({ "message": "hello" })),
            "no AccessKeyId and no SecretAccessKey and no Token and no Expiration in the response: container endpoint",
        ),
        (
            Reply::text(200, "application/json", &format!("\u{feff}{credentials}")),
            "no Token in the response: container endpoint",
        ),
    ] {
        let (service, endpoint) = (CloudWatch::start(), Collector::start([reply]));
        let uri = format!("{}/v1/credentials", endpoint.url());
        let program = Program::setup()
            .toml("[console]\nenabled = false\n[cloudwatch]\nenabled = true\nschedule_delay = 50\n")
            .env("AWS_ENDPOINT_URL", service.url())
            .env("AWS_REGION", CloudWatch::REGION)
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
            .start();
        program.get(HOME);
        program.wait_for_stderr(sentence);
        assert!(wait_until(SOON, || status_says(&program, sentence)), "{sentence}");
    }
}

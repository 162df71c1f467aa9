//! Kind 5: log services that are older than AWS's, or only look like it.

use serde_json::json;

use super::HOME;
use crate::support::told::status_says;
use crate::support::{CloudWatch, Program, SOON, Trick, log_lines, wait_until};

/// A program that sends its log lines to `service`.
pub(super) fn start(service: &CloudWatch) -> Program {
    start_with(service, "")
}

fn start_with(service: &CloudWatch, more: &str) -> Program {
    Program::setup()
        .toml(&format!("[console]\nenabled = false\n[cloudwatch]\nenabled = true\nschedule_delay = 50\n{more}"))
        .env("AWS_ENDPOINT_URL", service.url())
        .env("AWS_REGION", CloudWatch::REGION)
        .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
        .start()
}

/// An error of an older service: its body, whether the line is sent again, and the sentence, if
/// there is one.
const ERRORS: &[(&str, bool, &str)] = &[
    (
        r#"{"__type":"DataAlreadyAcceptedException","expectedSequenceToken":"49","message":"accepted before"}"#,
        false,
        "",
    ),
    (r#"{"__type":"InvalidSequenceTokenException","expectedSequenceToken":"49","message":"wrong"}"#, true, ""),
    (
        r#"{"__type":"InvalidSequenceTokenException","message":"The given sequenceToken is invalid. The next expected sequenceToken is: 49"}"#,
        true,
        "",
    ),
    (
        r#"{"__type":"InvalidSequenceTokenException","message":"no"}"#,
        true,
        "InvalidSequenceTokenException (HTTP 400) from URL: no; next: use a newer version of the service at this address",
    ),
    (
        r#"{"__type":"UnknownOperationException"}"#,
        true,
        "UnknownOperationException (HTTP 400) from URL; next: check the address; the service there has no such operation, and \
         the lines wait",
    ),
    (
        r#"{"__type":"SomethingNewException","message":"new"}"#,
        true,
        "SomethingNewException (HTTP 400) from URL: new; next: look up this error code, which cruddur does not know, in the \
         documentation of the service; the lines wait",
    ),
    (
        "<html>Proxy</html>",
        true,
        "HTTP 400 Bad Request from URL; next: check proxies between this machine and the service",
    ),
];

#[test]
fn t40_what_an_older_service_says_is_understood() {
    for (body, is_sent_again, sentence) in ERRORS {
        for more in ["", "compression = \"gzip\"\n"] {
            let service = CloudWatch::start();
            let program = start_with(&service, more);
            // The first line makes the group and the stream.
            program.get(HOME);
            service.wait_for_events(1, SOON);
            let before = service.calls().len();
            service.play(1, Trick::Answer(400, body));
            program.get(HOME);
            let backend = program.wait_for_backend("cloudwatch", |cloudwatch| cloudwatch["delivered"] == 2);
            assert_eq!((&backend["refused"], &backend["dropped"]), (&json!(0), &json!(0)), "{body}");
            let calls = &service.calls()[before..];
            assert_eq!((calls.len(), service.events().len()), if *is_sent_again { (2, 2) } else { (1, 1) }, "{body}");
            let lines = log_lines(&program.stderr(), "cloudwatch").join("\n");
            let said = sentence.replace("from URL", &format!("from {}", service.url()));
            if said.is_empty() {
                assert_eq!(lines, "", "{body}");
            } else {
                assert!(lines.contains(&said), "{said} not in {lines}");
                assert!(!lines.contains("check proxies") || body.starts_with('<'), "{lines}");
            }
            if *is_sent_again && sentence.is_empty() {
                let token = calls.iter().map(|call| call.body["sequenceToken"].clone()).collect::<Vec<_>>();
                assert_eq!(token, [json!(null), json!("49")], "{body} {more}");
            }
        }
    }
}

/// An old service demands the token with every batch, and its errors say which one.
#[test]
fn t40_a_service_that_demands_tokens_gets_every_line_once() {
    let service = CloudWatch::start();
    let program = start(&service);
    program.get(HOME);
    service.wait_for_events(1, SOON);
    for count in 2..5 {
        service.play(1, Trick::Answer(400, ERRORS[1].0));
        program.get(HOME);
        service.wait_for_events(count, SOON);
    }
    let deliveries = program.get("/telemetry/deliveries/cloudwatch-2").json().to_string();
    assert!(deliveries.contains("sequenceToken"), "the page shows the body that was sent: {deliveries}");
    assert_eq!(program.terminate().counts("cloudwatch"), [4, 0, 0, 0, 0]);
}

#[test]
fn t40_the_check_and_the_status_say_what_an_unknown_error_is() {
    let service = CloudWatch::start();
    service.play(1000, Trick::Answer(400, ERRORS[5].0));
    let program = start(&service);
    program.get(HOME);
    let sentence = ERRORS[5].2.replace("from URL", &format!("from {}", service.url()));
    assert!(wait_until(SOON, || status_says(&program, &sentence)), "{}", program.stderr());
    let url = service.url();
    let env = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_REGION", CloudWatch::REGION),
        ("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET),
    ];
    let exit = super::check("[cloudwatch]\nenabled = true\n", &env);
    assert!(exit.stdout.contains(&sentence), "{}", exit.stdout);
}

//! Answers of X-Ray's OTLP endpoint, as a child of `backends::xray_otlp`: each has an outcome, and a
//! message of one line without the secret.

use super::response::{Class, TracesResponse};
use super::{NAME, PATH, XRayOtlp};
use crate::delivery::{Outcome, Payload};
use crate::fuzz::{assert_one_line, reply};
use crate::settings::{Env, Findings, Sources, Values};
use crate::wire::aws_call::{Answered, AwsClient};
use crate::wire::aws_credentials::XRAY;
use crate::wire::redact::Redactor;

/// A server that repeats the secret writes `$KEY` in the input.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

pub(crate) fn answers(input: &[u8]) {
    let sources =
        Sources::from_text("", Env::from([("AWS_REGION", "us-east-1")])).expect("an empty text is valid TOML");
    let (mut values, mut findings) = (Values::default(), Findings::default());
    let client = AwsClient::new(NAME, XRAY, PATH, &sources, &mut values, &mut findings);
    let backend = XRayOtlp { client: client.expect("a region is enough").0, gzip: false };
    let mut reply = reply(input);
    reply.body = String::from_utf8_lossy(&reply.body).replace("$KEY", SECRET).into_bytes();
    reply.head = reply.head.replace("$KEY", SECRET);
    let response = TracesResponse::read(&reply);
    assert_one_line(&response.code, 64);
    assert!(!response.code.contains(SECRET));
    let (status, retry_after) = (reply.status, reply.retry_after);
    let answered = Answered { reply, redactor: Redactor::default().with_secret(SECRET), clock_moved: false };
    let payload = Payload { bytes: Vec::new(), items: 1, traces: Vec::new(), trimmed: None };
    let outcome = backend.outcome(&response, &answered, &payload);
    match &outcome {
        Outcome::Delivered | Outcome::Warned(_) | Outcome::Unconfirmed(_) => {
            assert!(response.class == Class::Accepted && (200..300).contains(&status));
        }
        Outcome::Partly { rejected, .. } => assert!(*rejected > 0),
        Outcome::Later { after, .. } => assert_eq!(*after, retry_after),
        Outcome::Refused(_) | Outcome::RefusedForNow(_) | Outcome::Closed(_) => {}
    }
    if let Some(problem) = outcome.problem() {
        let message = problem.message.to_string();
        assert_one_line(&problem.kind, 100);
        assert_one_line(&message, 2000);
        assert!(!message.contains(SECRET), "{message}");
    }
}

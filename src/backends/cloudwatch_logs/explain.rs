//! `cruddur explain cloudwatch`: prints the call for a sample log line, with a note on every field,
//! and the four steps of its signature.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::Level;

use super::encode::{LineFormat, LogEvents};
use super::{PUT_LOG_EVENTS, Unsigned};
use crate::delivery::Encoder;
use crate::logging::LogLine;
use crate::text::explanation::{Section, two_columns};
use crate::text::pretty::{AnnotatedJson, FieldNotes};
use crate::text::{Url, hex};
use crate::trace::current::Current;
use crate::trace::sample;
use crate::wire::http::Call;
use crate::wire::recorded::post_head;
use crate::wire::sigv4::{Secrets, Signed, Signer, key_chain};

const REGION: &str = "us-east-1";
const HOST: &str = "logs.us-east-1.amazonaws.com";
/// Access key of AWS's own examples.
const SECRETS: Secrets<'_> = Secrets {
    access_key_id: "AKIDEXAMPLE",
    secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    session_token: None,
};

pub(super) fn explain() -> Vec<Section> {
    let body = body();
    let (headers, signed) = signed(&body);
    let url = Url::parse(&format!("https://{HOST}/")).expect("this is a URL");
    let call = Call { url: &url, headers: &headers, body: body.as_bytes(), timeout: None };
    let head = post_head(&call, |_| true).replace("\r\n", "\n");
    let json = |root, json| {
        let notes = FieldNotes::of_encoder(include_str!("encode.rs"));
        AnnotatedJson { root, json, notes, elided: &[] }
    };
    vec![
        Section::json(
            "line",
            "PutLogEvents: one signed POST for a batch of log lines. This batch is the access line of the request. The line:",
            json("line", message(&body)),
        ),
        Section::json("body", "The body, spread out. The line is a string in it:", json("request", body.clone())),
        Section::text(
            "canonical",
            "Step 1, the canonical request: client and service build the same text from the request.",
            two_columns(canonical_request(&signed)),
        ),
        Section::text(
            "string",
            "Step 2, the string to sign: time, scope, and the hash of step 1.",
            two_columns(signed.string_to_sign.lines().zip(STRING_TO_SIGN)),
        ),
        Section::text(
            "key",
            "Step 3, the signing key. The secret is never sent. A key for one day, one region and one service is derived from it.",
            keys(),
        ),
        Section::text(
            "signature",
            "Step 4, the signature: HMAC-SHA256 of step 2 under the key of step 3.",
            format!("{}\n", signed.signature),
        ),
        Section::text(
            "request",
            format!("The request as it leaves, for https://{HOST}/. The body has {} bytes:", body.len()),
            format!("{head}{body}\n"),
        ),
    ]
}

/// Returns the body for the line that the server logs about the sample request.
fn body() -> String {
    let trace = sample::request();
    let root = &trace.spans[0];
    let line = LogLine {
        time: root.end / 1_000_000,
        level: Level::Info,
        target: "access".to_owned(),
        message: "[2023-Feb-20 02:30] 127.0.0.1 GET http /api/activities/home 200 OK".to_owned(),
        key_values: vec![],
        span: Some(Current { trace_id: trace.trace_id, span_id: root.id, flags: trace.flags }),
    };
    let (group, stream) = ("cruddur".to_owned(), "backend-flask".to_owned());
    let payloads = LogEvents { group, stream, format: LineFormat::Json }.encode(&[Arc::new(line)], 0);
    payloads.into_iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect()
}

/// Returns the first message of a body, as the service stores it.
fn message(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["logEvents"][0]["message"].as_str().unwrap_or_default().to_owned()
}

/// Signs the call five seconds after the line, the longest time that a line waits by default.
fn signed(body: &str) -> (Vec<(String, String)>, Signed) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(sample::request().spans[0].end) + Duration::from_secs(5);
    let call = Unsigned { operation: PUT_LOG_EVENTS, host: HOST, body: body.as_bytes(), encoding: None };
    call.sign(&mut Signer::new(REGION, "logs"), &SECRETS, now)
}

/// Returns the lines of the canonical request, each with a note.
fn canonical_request(signed: &Signed) -> Vec<(&str, &'static str)> {
    let remark = |line: &str| match line.split_once(':') {
        Some(("content-type", _)) => "a header: name in lower case, value without blanks around it",
        Some(("host", _)) => "the headers are sorted by name; host must be among them",
        Some(("x-amz-date", _)) => "the time again; AWS accepts it for five minutes",
        Some(("x-amz-target", _)) => "the operation; every x-amz- header must be signed",
        _ if line.starts_with("content-type;") => "the names of the headers that are signed",
        _ if line == "POST" => "the method",
        _ if line == "/" => "the path; CloudWatch Logs has only this one",
        _ if line.len() == 64 => "SHA-256 of the body, byte for byte as it leaves",
        _ => "",
    };
    let mut lines: Vec<_> = signed.canonical_request.lines().map(|line| (line, remark(line))).collect();
    let mut empty = ["the query; always empty here", "an empty line ends the headers"].into_iter();
    for (line, remark) in &mut lines {
        if line.is_empty() {
            *remark = empty.next().unwrap_or_default();
        }
    }
    lines
}

const STRING_TO_SIGN: [&str; 4] = [
    "the algorithm",
    "x-amz-date again",
    "the scope: day, region and service that the key is good for",
    "SHA-256 of the canonical request",
];

fn keys() -> String {
    let keys = key_chain(SECRETS.secret_access_key, "20230220", REGION, "logs").map(|key| hex(key.as_ref()));
    let remarks = [
        "HMAC-SHA256(key \"AWS4\" + secret, \"20230220\")",
        "HMAC-SHA256(key of the line above, \"us-east-1\")",
        "HMAC-SHA256(key of the line above, \"logs\")",
        "HMAC-SHA256(key of the line above, \"aws4_request\"): the signing key",
    ];
    two_columns(keys.iter().map(String::as_str).zip(remarks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::explanation::Body;

    #[test]
    fn every_field_and_every_line_that_is_signed_has_a_note() {
        for section in explain() {
            if let Body::Json(json) = section.body {
                assert_eq!(json.without_note(), [""; 0]);
            }
        }
        let (_, signed) = signed(&body());
        let remarks = canonical_request(&signed);
        assert_eq!(remarks.len(), 10);
        assert!(remarks.iter().all(|(_, remark)| !remark.is_empty()), "{remarks:?}");
        assert_eq!(signed.string_to_sign.lines().count(), STRING_TO_SIGN.len());
    }

    /// Computes the signature from the printed key, as a reader could. It equals the signature that
    /// is sent.
    #[test]
    fn the_steps_lead_to_the_signature_and_the_bytes_that_leave() {
        use ring::hmac;
        let text: String = explain().iter().map(Section::print).collect();
        let (_, signed) = signed(&body());
        let signing_key = keys().lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
        let bytes = |at: usize| u8::from_str_radix(&signing_key[at..at + 2], 16).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &(0..64).step_by(2).map(bytes).collect::<Vec<_>>());
        assert_eq!(hex(hmac::sign(&key, signed.string_to_sign.as_bytes()).as_ref()), signed.signature);
        assert!(text.contains(&format!("Signature={}\n", signed.signature)));
        assert!(text.ends_with(&format!("\n\n{}\n", body())));
        assert!(!text.contains(SECRETS.secret_access_key));
    }
}

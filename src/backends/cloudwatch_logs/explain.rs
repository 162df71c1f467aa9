//! `cruddur explain cloudwatch`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::Level;

use super::encode::{LineFormat, LogEvents};
use super::{PUT_LOG_EVENTS, Unsigned};
use crate::delivery::Encoder;
use crate::logging::LogLine;
use crate::text::pretty::{FieldNotes, pretty_print, two_columns};
use crate::text::{Url, hex};
use crate::trace::current::Current;
use crate::trace::sample;
use crate::wire::http::Call;
use crate::wire::recorded::post_head;
use crate::wire::sigv4::{Secrets, Signed, Signer, key_chain};

const REGION: &str = "us-east-1";
const HOST: &str = "logs.us-east-1.amazonaws.com";
/// The key of AWS's own examples.
const SECRETS: Secrets<'_> = Secrets {
    access_key_id: "AKIDEXAMPLE",
    secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    session_token: None,
};

pub(super) fn explain() -> String {
    let body = body();
    let (headers, signed) = signed(&body);
    let url = Url::parse(&format!("https://{HOST}/")).expect("this is a URL");
    let call = Call { url: &url, headers: &headers, body: body.as_bytes(), timeout: None };
    format!(
        "PutLogEvents: one POST for a batch of log lines, signed; this batch is the access line of the request. The line:\n\n\
         {}\nThe body, spread out; the line is text in it:\n\n{}\n\
         Step 1, the canonical request: what both sides write down in the same way.\n\n{}\n\
         Step 2, the string to sign: when, for what, and the hash of step 1.\n\n{}\n\
         Step 3, the signing key. The secret never leaves; a key for one day, one region and one service grows out of it.\n\n{}\n\
         Step 4, the signature: HMAC-SHA256 of step 2 under the key of step 3.\n\n{}\n\n\
         As it leaves, for https://{HOST}/; the body has {} bytes:\n\n{}{body}\n",
        pretty_print(&message(&body), LINE),
        pretty_print(&body, BODY),
        two_columns(canonical_request(&signed)),
        two_columns(signed.string_to_sign.lines().zip(STRING_TO_SIGN)),
        keys(),
        signed.signature,
        body.len(),
        post_head(&call, |_| true).replace("\r\n", "\n"),
    )
}

/// The body for the line that the server logs about the sample request.
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

/// The first message of a body, as the service stores it.
fn message(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["logEvents"][0]["message"].as_str().unwrap_or_default().to_owned()
}

/// Five seconds after the line: that is how long it may wait.
fn signed(body: &str) -> (Vec<(String, String)>, Signed) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(sample::request().spans[0].end) + Duration::from_secs(5);
    let call = Unsigned { operation: PUT_LOG_EVENTS, host: HOST, body: body.as_bytes(), encoding: None };
    call.sign(&mut Signer::new(REGION, "logs"), &SECRETS, now)
}

/// Its lines, each with what it is.
fn canonical_request(signed: &Signed) -> Vec<(&str, &'static str)> {
    let remark = |line: &str| match line.split_once(':') {
        Some(("content-type", _)) => "a header: name in lower case, value without blanks around it",
        Some(("host", _)) => "the headers come sorted by name; host must be among them",
        Some(("x-amz-date", _)) => "the time once more; AWS believes it for five minutes",
        Some(("x-amz-target", _)) => "the operation; every x-amz- header must be signed",
        _ if line.starts_with("content-type;") => "the names of the headers that are signed",
        _ if line == "POST" => "the method",
        _ if line == "/" => "the path; CloudWatch Logs has only this one",
        _ if line.len() == 64 => "SHA-256 of the body, byte for byte as it leaves",
        _ => "",
    };
    let mut lines: Vec<_> = signed.canonical_request.lines().map(|line| (line, remark(line))).collect();
    let mut empty = ["the query; always empty here", "nothing: the headers end here"].into_iter();
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
        "HMAC of 20230220 under AWS4 and the secret",
        "of us-east-1 under that",
        "of logs under that",
        "of aws4_request under that: the signing key",
    ];
    two_columns(keys.iter().map(String::as_str).zip(remarks))
}

const LINE: FieldNotes = &[
    ("time", "when it was logged"),
    ("level", "ERROR, WARN, INFO or DEBUG; by status: 5xx are errors"),
    ("target", "which part of the program"),
    ("message", "what Flask's access line said in the course"),
    ("trace_id", "as Honeycomb has it"),
    ("xray_trace_id", "as X-Ray has it: copy it into the console's search"),
    ("span_id", "the span that the line was written in"),
];

const BODY: FieldNotes = &[
    ("logGroupName", "the group; made with the first line, with a retention"),
    ("logStreamName", "one stream for each machine"),
    ("logEvents", "in the order of their times, within 24 hours, 10,000 at most"),
    ("timestamp", "milliseconds since 1970; older than 14 days, or than the retention, is not stored"),
    ("message", "Logs Insights finds the fields in it by itself; 26 bytes more are charged for each"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::pretty::{without_field, without_note};

    #[test]
    fn every_field_and_every_line_that_is_signed_has_a_line() {
        assert_eq!(without_note(&body(), BODY), [""; 0]);
        assert_eq!(without_note(&message(&body()), LINE), [""; 0]);
        assert_eq!((without_field(&body(), BODY).len(), without_field(&message(&body()), LINE).len()), (0, 0));
        let (_, signed) = signed(&body());
        let remarks = canonical_request(&signed);
        assert_eq!(remarks.len(), 10);
        assert!(remarks.iter().all(|(_, remark)| !remark.is_empty()), "{remarks:?}");
        assert_eq!(signed.string_to_sign.lines().count(), STRING_TO_SIGN.len());
    }

    /// Whoever follows the steps by hand gets the signature that was sent.
    #[test]
    fn the_steps_lead_to_the_signature_and_the_bytes_that_leave() {
        use ring::hmac;
        let text = explain();
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

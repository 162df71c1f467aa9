//! The four steps of a signature, with a note on every line, for `cruddur explain`.

use std::time::{Duration, SystemTime};

use super::sign;
use crate::text::explanation::{Section, two_columns};
use crate::text::{Url, hex};
use crate::trace::sample;
use crate::wire::aws_credentials::Service;
use crate::wire::http::Call;
use crate::wire::recorded::post_head;
use crate::wire::sigv4::{Secrets, Signed, Signer, key_chain};

/// A call of the sample request, signed with the key of AWS's own examples.
pub(crate) struct SignedExample {
    service: Service,
    url: Url,
    headers: Vec<(String, String)>,
    body: String,
    signed: Signed,
}

const REGION: &str = "us-east-1";
/// Access key of AWS's own examples.
const SECRETS: Secrets<'_> = Secrets {
    access_key_id: "AKIDEXAMPLE",
    secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    session_token: None,
};

impl SignedExample {
    /// Signs a call to `path` of the service. The time is five seconds after the sample request, the
    /// longest time that its telemetry waits by default.
    pub(crate) fn new(service: Service, path: &str, headers: Vec<(String, String)>, body: String) -> Self {
        let url = Url::parse(&format!("https://{}.{REGION}.amazonaws.com{path}", service.name)).expect("this is a URL");
        let end = Duration::from_nanos(sample::request().spans[0].end);
        let now = SystemTime::UNIX_EPOCH + end + Duration::from_secs(5);
        let mut signer = Signer::new(REGION, service.name);
        let (headers, signed) = sign(&url, headers, body.as_bytes(), &mut signer, &SECRETS, now);
        Self { service, url, headers, body, signed }
    }

    /// Returns a section for each step, then one for the request as it leaves.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let Signed { string_to_sign, signature, .. } = &self.signed;
        vec![
            Section::text(
                "canonical",
                "Step 1, the canonical request: client and service build the same text from the request.",
                two_columns(self.canonical_request()),
            ),
            Section::text(
                "string",
                "Step 2, the string to sign: time, scope, and the hash of step 1.",
                two_columns(string_to_sign.lines().zip(STRING_TO_SIGN)),
            ),
            Section::text(
                "key",
                "Step 3, the signing key. The secret is never sent. A key for one day, one region and one service is derived from it.",
                self.keys(),
            ),
            Section::text(
                "signature",
                "Step 4, the signature: HMAC-SHA256 of step 2 under the key of step 3.",
                format!("{signature}\n"),
            ),
            Section::text(
                "request",
                format!("The request as it leaves, for {}. The body has {} bytes:", self.url, self.body.len()),
                self.request(),
            ),
        ]
    }

    fn request(&self) -> String {
        let call = Call { url: &self.url, headers: &self.headers, body: self.body.as_bytes(), timeout: None };
        format!("{}{}\n", post_head(&call, |_| true).replace("\r\n", "\n"), self.body)
    }

    /// Returns the lines of the canonical request, each with a note.
    fn canonical_request(&self) -> Vec<(&str, &'static str)> {
        let remark = |line: &str| match line.split_once(':') {
            Some(("content-type", _)) => "a header: name in lower case, value without blanks around it",
            Some(("host", _)) => "the headers are sorted by name; host must be among them",
            Some(("x-amz-date", _)) => "the time again; AWS accepts it for five minutes",
            Some(("x-amz-target", _)) => "the operation; every x-amz- header must be signed",
            _ if line.starts_with("content-type;") => "the names of the headers that are signed",
            _ if line == "POST" => "the method",
            _ if line == "/" => "the path; CloudWatch Logs has only this one",
            _ if line == self.url.path() => "the path",
            _ if line.len() == 64 => "SHA-256 of the body, byte for byte as it leaves",
            _ => "",
        };
        let mut lines: Vec<_> = self.signed.canonical_request.lines().map(|line| (line, remark(line))).collect();
        let mut empty = ["the query; always empty here", "an empty line ends the headers"].into_iter();
        for (line, remark) in &mut lines {
            if line.is_empty() {
                *remark = empty.next().unwrap_or_default();
            }
        }
        lines
    }

    fn keys(&self) -> String {
        let (date, service) = (&self.signed.x_amz_date[..8], self.service.name);
        let keys = key_chain(SECRETS.secret_access_key, date, REGION, service).map(|key| hex(key.as_ref()));
        let of_above = |text: &str| format!("HMAC-SHA256(key of the line above, \"{text}\")");
        let remarks = [
            format!("HMAC-SHA256(key \"AWS4\" + secret, \"{date}\")"),
            of_above(REGION),
            of_above(service),
            of_above("aws4_request") + ": the signing key",
        ];
        two_columns(keys.iter().map(String::as_str).zip(remarks.iter().map(String::as_str)))
    }
}

const STRING_TO_SIGN: [&str; 4] = [
    "the algorithm",
    "x-amz-date again",
    "the scope: day, region and service that the key is good for",
    "SHA-256 of the canonical request",
];

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;
    use crate::wire::aws_credentials::{CLOUDWATCH_LOGS, XRAY};

    fn examples() -> [SignedExample; 2] {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let logs = vec![header("content-type", "application/x-amz-json-1.1"), header("x-amz-target", "A.B")];
        let traces = vec![header("content-type", "application/json")];
        [
            SignedExample::new(CLOUDWATCH_LOGS, "/", logs, "{}".to_owned()),
            SignedExample::new(XRAY, "/v1/traces", traces, "{}".to_owned()),
        ]
    }

    #[test]
    fn every_line_that_is_signed_has_a_note() {
        for (example, lines) in examples().into_iter().zip([10, 9]) {
            let remarks = example.canonical_request();
            assert_eq!(remarks.len(), lines);
            assert!(remarks.iter().all(|(_, remark)| !remark.is_empty()), "{remarks:?}");
            assert_eq!(example.signed.string_to_sign.lines().count(), STRING_TO_SIGN.len());
        }
    }

    /// Computes the signature from the printed key, as a reader could. It equals the signature that
    /// is sent.
    #[test]
    fn the_steps_lead_to_the_signature_and_the_bytes_that_leave() {
        for example in examples() {
            let text: String = example.sections().iter().map(Section::print).collect();
            let signing_key = example.keys().lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
            let bytes = |at: usize| u8::from_str_radix(&signing_key[at..at + 2], 16).unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, &(0..64).step_by(2).map(bytes).collect::<Vec<_>>());
            let signed = &example.signed;
            assert_eq!(hex(hmac::sign(&key, signed.string_to_sign.as_bytes()).as_ref()), signed.signature);
            assert!(text.contains(&format!("Signature={}\n", signed.signature)));
            assert!(text.ends_with(&format!("\n\n{}\n", example.body)));
            assert!(!text.contains(SECRETS.secret_access_key));
        }
    }
}

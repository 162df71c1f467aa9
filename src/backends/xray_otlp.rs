//! X-Ray without its daemon: AWS's OTLP endpoint. The body is that of `[honeycomb]`, made by the same
//! encoder. The call is signed as those of `[cloudwatch]`, by the same code. This file sends the
//! calls, and decides what to do about an error. `limits.rs` keeps the limits of the endpoint, and
//! `response.rs` reads the response.
//!
//! In: a batch of finished traces. Out: one signed POST, or several if the batch exceeds a limit.
//!
//! ```text
//! POST /v1/traces HTTP/1.1
//! host: xray.eu-central-1.amazonaws.com             in China and other partitions another suffix
//! content-type: application/json
//! x-amz-date: 20260115T123456Z
//! authorization: AWS4-HMAC-SHA256 Credential=AKIA.../20260115/eu-central-1/xray/aws4_request,
//!   SignedHeaders=content-type;host;x-amz-date, Signature=...          (one line)
//!
//! {"resourceSpans":[{"resource":{...},"scopeSpans":[{"scope":{...},"spans":[...]}]}]}
//! ```
//!
//! Some details are surprising:
//!
//! - The signature covers the bytes that are sent. With gzip that is the compressed body.
//! - The endpoint accepts spans only while *Transaction Search* is on in the account and the region.
//!   Otherwise it responds with 400, and the spans wait in the queue until the setting is corrected.
//! - The status 403 has three causes: a wrong signature (or clock), an unknown key, and a missing
//!   permission. The error code says which.
//! - X-Ray's sampling rules do not apply. OpenTelemetry's sampler decides. By default X-Ray indexes
//!   1 % of the spans as trace summaries; all spans can be searched.
//!
//! Specification:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>.

mod explain;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/xray_otlp.rs"]
pub(crate) mod fuzz;
mod limits;
mod response;
mod settings;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::response::{Class, TracesResponse};
use super::Plugin;
use super::otlp_http::response::Receiver;
use crate::delivery::{Outcome, Payload, Problem, Transport};
use crate::text::{Message, one_line, reason_phrase};
use crate::wire::aws_call::{Answered, AwsCall, AwsClient, ErrorClass, Remedies, TIMEOUT};
use crate::wire::http::CallError;
use crate::wire::recorded::RecordedCall;

/// `[xray_otlp]`.
pub const PLUGIN: Plugin =
    Plugin { name: NAME, section: &settings::XRayOtlp::SECTION, plan: settings::plan, explain: Some(explain::explain) };

const NAME: &str = "xray_otlp";
/// Path of the endpoint.
const PATH: &str = "/v1/traces";

/// Client for the endpoint of one region.
struct XRayOtlp {
    client: AwsClient,
    gzip: bool,
}

impl Transport for XRayOtlp {
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let deadline = Instant::now() + timeout.unwrap_or(TIMEOUT);
        let mut remedies = Remedies::default();
        loop {
            let call = AwsCall { headers: headers(self.gzip), body: &payload.bytes, is_payload: true, deadline };
            let answered = match self.client.call(call, calls) {
                Ok(answered) => answered,
                Err(failed) => {
                    let (kind, message) = self.client.describe(failed, "spans");
                    let problem = Problem::new(kind, message);
                    let is_closed = kind == CallError::Closed.kind();
                    return if is_closed { Outcome::Closed(problem) } else { Outcome::Later { after: None, problem } };
                }
            };
            let response = TracesResponse::read(&answered.reply);
            let retries = |class| self.client.can_retry(&mut remedies, class, answered.clock_moved);
            if !response.class.common().is_some_and(retries) {
                return self.outcome(&response, &answered, payload);
            }
        }
    }

    /// Returns no limit: spans wait in the queue until the endpoint accepts them. Spans that do not
    /// fit into the queue are dropped and counted.
    fn max_elapsed_time(&self) -> Option<Duration> {
        None
    }

    fn compresses(&self) -> bool {
        self.gzip
    }

    fn clock_offset(&self) -> i64 {
        self.client.clock_offset()
    }
}

/// Headers of a call, without those of the signature.
fn headers(gzip: bool) -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let encoding = gzip.then(|| header("content-encoding", "gzip"));
    [header("content-type", "application/json")].into_iter().chain(encoding).collect()
}

impl XRayOtlp {
    fn outcome(&self, response: &TracesResponse, answered: &Answered, payload: &Payload) -> Outcome {
        let Answered { reply, redactor, .. } = answered;
        let (url, status, code) = (self.client.url(), reply.status, response.code.as_str());
        let receiver = Receiver { url, redactor };
        let name = match code {
            "" => format!("HTTP {status} {}", reason_phrase(status)),
            code => format!("{code} (HTTP {status})"),
        };
        let message = match response.message.as_str() {
            "" => receiver.said(&reply.body),
            message => one_line(&redactor.redact(message.to_owned())),
        };
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        let problem = |next: &str| {
            Problem::new(format!("{status} {code}"), Message::new(format!("{name} from {url}{said}")).next(next))
        };
        let later = |next: &str| Outcome::Later { after: reply.retry_after, problem: problem(next) };
        match response.class {
            Class::Accepted => receiver.accepted(reply),
            Class::Common(ErrorClass::Throttled) => later("nothing to do; the spans are retried more slowly"),
            Class::Common(ErrorClass::Transient) => later("nothing to do; the spans are retried"),
            Class::Common(ErrorClass::Expired) => later("get new credentials; they are read again before each attempt"),
            Class::Common(ErrorClass::Signature) => {
                later("check AWS_SECRET_ACCESS_KEY, the region and this machine's clock")
            }
            Class::Common(ErrorClass::UnknownKey) => later(
                "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN, and that the key belongs to this partition of AWS",
            ),
            Class::Common(ErrorClass::Denied) => later(
                "allow xray:PutTraceSegments, xray:PutSpans and xray:PutSpansForIndexing for this key \
                 (aws/json/policy-xray-otlp.json)",
            ),
            Class::SearchOff => later(
                "turn Transaction Search on: aws xray update-trace-segment-destination --destination CloudWatchLogs \
                 (aws/README.md); the spans wait",
            ),
            Class::NoEndpoint => {
                later("check the address, and that X-Ray has an OTLP endpoint in this region; the spans wait")
            }
            Class::Foreign => later("check proxies between this machine and the endpoint; the spans wait"),
            Class::TooLarge => Outcome::Refused(problem(&format!(
                "lower max_export_batch_size in [xray_otlp]; the request had {} bytes",
                payload.bytes.len()
            ))),
            Class::Invalid => Outcome::Refused(problem(
                "correct what the endpoint names, or report this bug; the spans are lost and counted as refused",
            )),
        }
    }
}

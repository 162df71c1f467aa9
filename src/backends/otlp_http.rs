//! OTLP over HTTP, in JSON: the format that Honeycomb, the OpenTelemetry Collector, Jaeger and many
//! others accept. This file sends the POST and reads the response. `encode.rs` writes the body.
//!
//! In: a batch of finished traces. Out: one POST, or several if the body would be too large.
//!
//! ```text
//! POST /v1/traces HTTP/1.1
//! host: api.honeycomb.io
//! content-type: application/json     exactly this: Honeycomb answers 415 to "; charset=utf-8"
//! x-honeycomb-team: ***
//!
//! {"resourceSpans":[{"resource":{"attributes":[
//!     {"key":"service.name","value":{"stringValue":"backend-flask"}}]},
//!   "scopeSpans":[{"scope":{"name":"cruddur.http","version":"0.1.0"},"spans":[
//!     {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":257,
//!      "name":"GET /api/activities/home","kind":2,
//!      "startTimeUnixNano":"1676851200000000000","endTimeUnixNano":"1676851200004250000",
//!      "attributes":[{"key":"http.response.status_code","value":{"intValue":"200"}}],"status":{}}]}]}]}
//! ```
//!
//! The body has three layers: the resource (the program that sends), the scope (the part of the
//! program that made the spans), and the spans. Five details of these bytes are surprising:
//!
//! - 64-bit numbers are *strings*. Protobuf's JSON mapping requires this, because many JSON readers
//!   keep integers only up to 2^53. 32-bit numbers (`flags`) are numbers. If a single time is a
//!   number, Honeycomb refuses the whole batch.
//! - Ids are hex, although protobuf's JSON mapping writes bytes as base64.
//! - Enums are numbers, because OTLP forbids their names. SERVER is 2: the value 0 means
//!   "unspecified".
//! - Empty and zero fields of a span are left out, and `null` is never written. Only `status` is
//!   always present.
//! - The type of an attribute's value is the name of a field: `{"intValue":"3"}`.
//!
//! Fields are in the order of the Collector, so a test can compare our bytes with its output.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/>,
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>.

pub(super) mod encode;
mod explain;
mod findings;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/otlp_http.rs"]
pub(crate) mod fuzz;
pub(super) mod response;
mod settings;

use std::time::Duration;

use self::encode::OtlpJson;
use self::response::Receiver;
use super::Plugin;
use crate::delivery::{Outcome, Payload, Problem, Transport};
use crate::settings::described_secret;
use crate::text::{Message, Url, reason_phrase, url};
use crate::wire::http::{Call, CallError, HttpClient, Reply};
use crate::wire::recorded::RecordedCall;
use crate::wire::redact::Redactor;

/// `[honeycomb]`.
pub const PLUGIN: Plugin = Plugin {
    name: "honeycomb",
    section: &settings::Honeycomb::SECTION,
    plan: settings::plan,
    explain: Some(explain::explain),
};

/// Client for one OTLP endpoint.
struct OtlpHttp {
    client: HttpClient,
    url: Url,
    /// Setting that `url` came from. Error messages name it as the first thing to check.
    url_origin: String,
    headers: Vec<(String, String)>,
    /// Redacts secrets in the responses of the server.
    redactor: Redactor,
    gzip: bool,
    max_elapsed_time: Option<Duration>,
}

/// Time limit of one attempt if the setting `timeout` is 0. Without this limit, a receiver that
/// hangs would block the worker thread forever.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Transport for OtlpHttp {
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let timeout = Some(timeout.unwrap_or(TIMEOUT));
        let call = Call { url: &self.url, headers: &self.headers, body: &payload.bytes, timeout };
        let reply = self.client.post(&call);
        calls.push(RecordedCall::post(
            &call,
            reply.as_ref(),
            |name| settings::PUBLIC_HEADERS.contains(&name),
            &self.redactor,
        ));
        match reply {
            Ok(reply) => self.answered(&reply, payload.bytes.len()),
            Err(error) => self.unanswered(&error),
        }
    }

    fn max_elapsed_time(&self) -> Option<Duration> {
        self.max_elapsed_time
    }

    fn compresses(&self) -> bool {
        self.gzip
    }
}

/// Makes a redactor for the secrets in the address and in the headers.
fn redactor(url: &Url, headers: &[(String, String)]) -> Redactor {
    let secret = headers.iter().filter(|(name, _)| !settings::PUBLIC_HEADERS.contains(&name.as_str()));
    Redactor::new(url, secret.map(|(_, value)| value.as_str()))
}

impl OtlpHttp {
    /// Returns the outcome of a response. 2xx is delivered, unless the body exceeds 4 MiB, reports
    /// rejected spans, or does not come from a receiver of OTLP. 429, 502, 503 and 504 are retried.
    /// Redirects, 401, 403, 404, 405 and other 5xx may pass. Any other status loses the batch.
    fn answered(&self, reply: &Reply, sent: usize) -> Outcome {
        let status = reply.status;
        let receiver = Receiver { url: &self.url, redactor: &self.redactor };
        let said = receiver.said(&reply.body);
        let in_brackets = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let problem = |what: &str, next: String| {
            let reason = reason_phrase(status);
            let what = format!("HTTP {status} {reason} from {}{what}{in_brackets}", self.url);
            Problem::new(status.to_string(), Message::new(what).next(next))
        };
        match status {
            _ if reply.too_long => Outcome::Refused(problem(
                ": response too long (more than 4 MiB)",
                "check that an OTLP receiver listens there".to_owned(),
            )),
            200..=299 => receiver.accepted(reply),
            429 | 502 | 503 | 504 => {
                let next = "nothing to do; the batch is retried, and dropped and counted if no attempt succeeds";
                Outcome::Later { after: reply.retry_after, problem: problem("", next.to_owned()) }
            }
            300..=399 => {
                let shown = |to| format!(" to {}", receiver.readable(&url::redacted(to)));
                let to = reply.header("location").map_or_else(String::new, shown);
                let next = format!("set {} to the final address; redirects are not followed", self.url_origin);
                Outcome::RefusedForNow(problem(&format!(", a redirect{to}"), next))
            }
            401 | 403 | 404 | 405 | 500.. => Outcome::RefusedForNow(problem("", self.next_step(status, &said, sent))),
            status => Outcome::Refused(problem("", self.next_step(status, &said, sent))),
        }
    }

    fn next_step(&self, status: u16, said: &str, sent: usize) -> String {
        match status {
            401 | 403 if said.contains("x-honeycomb-dataset") => {
                "set `dataset` in [honeycomb]; a Classic key needs a dataset".to_owned()
            }
            401 | 403 => match self.described_key() {
                Some(key) => format!("check the API key {key}, and that the endpoint is in the region of the key"),
                None => "set HONEYCOMB_API_KEY; no x-honeycomb-team header is sent".to_owned(),
            },
            404 | 405 => format!("check the path of the address, which comes from {}", self.url_origin),
            400 if said.contains("compress") || said.contains("ncoding") => {
                "set compression = \"none\" in [honeycomb]".to_owned()
            }
            413 => format!("lower max_export_batch_size in [honeycomb]; the batch had {sent} bytes"),
            415 => "check that the receiver at this address accepts OTLP as JSON (http/json)".to_owned(),
            _ => "check the receiver; the batch is lost and counted as refused".to_owned(),
        }
    }

    fn unanswered(&self, error: &CallError) -> Outcome {
        let origin = &self.url_origin;
        let mut what = error.at(&self.url);
        let preposition = match error {
            CallError::ConnectionRefused => Some("by"),
            CallError::UnknownHost => Some("for"),
            _ => None,
        };
        if let (Some(preposition), Some(proxy)) = (preposition, self.client.proxy()) {
            what.push_str(&format!(", or {preposition} the proxy {proxy}"));
        }
        let next = match error {
            CallError::ConnectionRefused => {
                format!("start the receiver, or correct {origin} (inside a container, localhost is the container)")
            }
            CallError::UnknownHost => format!("correct {origin}, or check DNS"),
            CallError::Timeout(_) => "check the network, or raise OTEL_EXPORTER_OTLP_TIMEOUT (milliseconds)".to_owned(),
            CallError::Closed => "check the log of the receiver".to_owned(),
            CallError::Tls(_) => format!("check http/https in {origin}, or OTEL_EXPORTER_OTLP_CERTIFICATE"),
            CallError::NotHttp(_) => "use port 4318 for OTLP over HTTP; port 4317 is for gRPC".to_owned(),
            CallError::Other(_) => format!("check {origin}"),
        };
        let problem = Problem::new(error.kind(), Message::new(what).next(next));
        match error {
            CallError::Closed => Outcome::Closed(problem),
            CallError::NotHttp(_) | CallError::Tls(_) => Outcome::RefusedForNow(problem),
            _ => Outcome::Later { after: None, problem },
        }
    }

    /// Describes the key: its length, and its last four characters if it is long enough.
    fn described_key(&self) -> Option<String> {
        let (_, key) = self.headers.iter().find(|(name, _)| name == settings::TEAM)?;
        Some(described_secret(key))
    }
}

#[cfg(test)]
mod tests;

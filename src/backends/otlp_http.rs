//! OTLP over HTTP, in JSON: what Honeycomb, the OpenTelemetry Collector, Jaeger and many others take.
//!
//! In: a batch of finished traces. Out: one POST a batch.
//!
//! ```text
//! POST /v1/traces HTTP/1.1
//! host: api.honeycomb.io
//! content-type: application/json            exactly that: with "; charset=utf-8" Honeycomb answers 415
//! x-honeycomb-team: ***
//!
//! {"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"backend-flask"}}]},
//!   "scopeSpans":[{"scope":{"name":"cruddur.http","version":"0.1.0"},"spans":[
//!     {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":257,
//!      "name":"GET /api/activities/home","kind":2,
//!      "startTimeUnixNano":"1676851200000000000","endTimeUnixNano":"1676851200004250000",
//!      "attributes":[{"key":"http.response.status_code","value":{"intValue":"200"}}],"status":{}}]}]}]}
//! ```
//!
//! Three layers: who sends (resource), which part of the program wrote it (scope), the spans. Five things in these bytes
//! surprise, and each has cost somebody a day:
//!
//! - 64-bit numbers are *strings*: JSON has no integers beyond 2^53, and protobuf's JSON mapping says so. 32-bit ones
//!   (`flags`) are numbers. Honeycomb refuses a whole batch over one time that is a number.
//! - Ids are hex, although the mapping says base64 for bytes; OTLP makes this one exception.
//! - Enums are numbers, and SERVER is 2, not 1: the 0 of the wire means "unspecified".
//! - What is empty or zero is left out, except `status`, which is always there; `null` never is.
//! - Fields come in the order of the Collector, so that what it would print is what we send, byte for byte.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/>,
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>.

mod encode;
mod explain;
mod findings;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/otlp_http.rs"]
pub(crate) mod fuzz;
mod settings;

use std::time::Duration;

use serde_json::Value as Json;

use self::encode::OtlpJson;
use super::Plugin;
use crate::delivery::{Outcome, Payload, Problem, Transport};
use crate::settings::described_secret;
use crate::text::{Message, Url, one_line, url};
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

/// A client for one OTLP endpoint.
struct OtlpHttp {
    client: HttpClient,
    url: Url,
    /// Where `url` came from: the first thing to look at when it is wrong.
    url_origin: String,
    headers: Vec<(String, String)>,
    /// Replaces secrets in all that a server says.
    redactor: Redactor,
    gzip: bool,
    max_elapsed_time: Option<Duration>,
}

/// How long one attempt may take when there is no limit for all of them together: nothing would be heard of a receiver that
/// hangs, and a worker whose settings have changed would stay with its batch.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Transport for OtlpHttp {
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let timeout = Some(timeout.unwrap_or(TIMEOUT));
        let call = Call { url: &self.url, headers: &self.headers, body: &payload.bytes, timeout };
        let reply = self.client.post(&call);
        calls.push(RecordedCall::post(
            &call,
            reply.as_ref(),
            |name| settings::NO_SECRET.contains(&name),
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

/// The secrets in the address and in the headers.
fn redactor(url: &Url, headers: &[(String, String)]) -> Redactor {
    let secret = headers.iter().filter(|(name, _)| !settings::NO_SECRET.contains(&name.as_str()));
    Redactor::new(url, secret.map(|(_, value)| value.as_str()))
}

impl OtlpHttp {
    /// 2xx is success, whatever the body; 429, 502, 503 and 504 may be tried again; everything else may not.
    fn answered(&self, reply: &Reply, sent: usize) -> Outcome {
        let status = reply.status;
        let said = self.said(&reply.body);
        let in_brackets = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let problem = |what: &str, next: String| {
            let what = format!("{} answered {status}{what}{in_brackets}", self.url);
            Problem::new(status.to_string(), Message::new(what).next(next))
        };
        match status {
            _ if reply.too_long => Outcome::Refused(problem(
                " with more than 4 MiB",
                "check that an OTLP receiver listens there".to_owned(),
            )),
            200..=299 => self.accepted(&reply.body),
            429 | 502 | 503 | 504 => {
                let next =
                    "nothing; the batch is sent again for a while, and dropped and counted if that does not help";
                Outcome::Later { after: reply.retry_after, problem: problem("", next.to_owned()) }
            }
            300..=399 => {
                let shown = |to| format!(" to {}", self.readable(&url::redacted(to)));
                let to = reply.header("location").map_or_else(String::new, shown);
                let next =
                    format!("redirects are not followed with a key; set {} to the final address", self.url_origin);
                Outcome::Refused(problem(&format!(", a redirect{to}"), next))
            }
            status => Outcome::Refused(problem("", self.next_step(status, &said, sent))),
        }
    }

    fn accepted(&self, body: &[u8]) -> Outcome {
        let Some((rejected, message)) = partial_success(body) else { return Outcome::Delivered };
        let message = self.readable(&message);
        if rejected == 0 {
            let what = format!("{} took everything, but says: {message}", self.url);
            return Outcome::Warned(Problem::new("warning", what));
        }
        let why = if message.is_empty() { "it does not say why" } else { &message };
        let what = Message::new(format!("{} rejected {rejected} spans: {why}", self.url));
        let next = "they are lost and counted as refused, mend what it names";
        Outcome::Partly { rejected, problem: Problem::new("partial success", what.next(next)) }
    }

    fn next_step(&self, status: u16, said: &str, sent: usize) -> String {
        match status {
            401 | 403 if said.contains("x-honeycomb-dataset") => {
                "this is a Classic key, it needs a dataset: set `dataset` in [honeycomb]".to_owned()
            }
            401 | 403 => match self.described_key() {
                Some(key) => format!("check the API key {key}, and that its region is the endpoint's"),
                None => "no x-honeycomb-team header is sent; set HONEYCOMB_API_KEY".to_owned(),
            },
            404 | 405 => format!("check the path: this address comes from {}", self.url_origin),
            400 if said.contains("compress") || said.contains("ncoding") => {
                "set compression = \"none\" in [honeycomb]".to_owned()
            }
            413 => format!("the batch had {sent} bytes; lower max_export_batch_size in [honeycomb]"),
            415 => "this address does not take OTLP as JSON; check that it speaks http/json".to_owned(),
            _ => "the batch is lost and counted as refused; check the receiver".to_owned(),
        }
    }

    fn unanswered(&self, error: &CallError) -> Outcome {
        let origin = &self.url_origin;
        let mut what = format!("{}: {error}", self.url);
        let next = match error {
            CallError::ConnectionRefused => {
                if let Some(proxy) = self.client.proxy() {
                    what.push_str(&format!(", or at the proxy {proxy}"));
                }
                format!("start the receiver, or mend {origin} (inside a container, localhost is the container)")
            }
            CallError::UnknownHost => format!("mend {origin}, or check DNS"),
            CallError::Timeout => "check the network, or raise OTEL_EXPORTER_OTLP_TIMEOUT (milliseconds)".to_owned(),
            CallError::Closed => "look at the receiver's log".to_owned(),
            CallError::Tls(_) => format!("check http/https in {origin}, or OTEL_EXPORTER_OTLP_CERTIFICATE"),
            CallError::NotHttp(_) => "port 4317 speaks gRPC, OTLP over HTTP has 4318".to_owned(),
            CallError::Other(_) => format!("check {origin}"),
        };
        let problem = Problem::new(error.kind(), Message::new(what).next(next));
        match error {
            CallError::Closed => Outcome::Closed(problem),
            CallError::NotHttp(_) | CallError::Tls(_) => Outcome::Refused(problem),
            _ => Outcome::Later { after: None, problem },
        }
    }

    /// What the other side says: `message` of a `google.rpc.Status`, `detail` or `error` of RFC 7807, else the beginning of
    /// the text.
    fn said(&self, body: &[u8]) -> String {
        if let Ok(Json::Object(answer)) = serde_json::from_slice(body) {
            let text = ["message", "detail", "error", "title"].iter().find_map(|key| answer.get(*key)?.as_str());
            return self.readable(text.unwrap_or_default());
        }
        self.readable(&String::from_utf8_lossy(body))
    }

    /// A text as one short line without secrets: some servers repeat the key that they refuse.
    fn readable(&self, text: &str) -> String {
        one_line(&self.redactor.redact(text.trim().to_owned()))
    }

    /// How long the key is, and its last four characters if it can spare them.
    fn described_key(&self) -> Option<String> {
        let (_, key) = self.headers.iter().find(|(name, _)| name == settings::TEAM)?;
        Some(described_secret(key))
    }
}

/// `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"..."}}`; the number may be a string or a number. `None`:
/// full success, which is also what an empty or unreadable body means.
fn partial_success(body: &[u8]) -> Option<(usize, String)> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = match partial.get("rejectedSpans") {
        Some(Json::String(text)) => text.parse().unwrap_or(0),
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    };
    let message = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default().trim().to_owned();
    (rejected > 0 || !message.is_empty()).then(|| (usize::try_from(rejected).unwrap_or(usize::MAX), message))
}

#[cfg(test)]
mod tests;

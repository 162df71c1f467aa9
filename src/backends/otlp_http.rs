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
mod settings;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use self::encode::encode;
use super::{Backend, Dialect, Outcome, Payload, Plugin, one_line};
use crate::delivery::Problem;
use crate::settings::described_secret;
use crate::trace::FinishedTrace;
use crate::trace::span::Attribute;
use crate::wire::exchange::Exchange;
use crate::wire::hidden::Hidden;
use crate::wire::http::{Call, CallError, HttpClient, Reply, shown};

/// `[honeycomb]`.
pub const PLUGIN: Plugin =
    Plugin { name: "honeycomb", toml: settings::TOML, plan: settings::plan, explain: Some(explain::explain) };

/// A client for one OTLP endpoint.
struct OtlpHttp {
    client: HttpClient,
    url: String,
    /// Where `url` came from: the first thing to look at when it is wrong.
    url_origin: String,
    headers: Vec<(String, String)>,
    /// What is replaced in all that a server says.
    hidden: Hidden,
    resource: Vec<Attribute>,
    gzip: bool,
    budget: Option<Duration>,
}

/// Payloads are cut at this size before compression. Receivers differ in what they take; all take this.
const LARGEST_BODY: usize = 1 << 20;
/// How long one try may take when all tries together may take for ever: nobody would hear of a receiver that hangs, and a
/// worker whose settings have changed would stay with its batch.
const PATIENCE: Duration = Duration::from_secs(60);

impl Backend<FinishedTrace> for OtlpHttp {
    fn encode(&self, batch: &[Arc<FinishedTrace>]) -> Vec<Payload> {
        let mut payloads = Vec::new();
        encode(&self.resource, batch, LARGEST_BODY, self.gzip, &mut payloads);
        payloads
    }

    fn deliver(&mut self, payload: &Payload, patience: Option<Duration>, seen: &mut Vec<Exchange>) -> Outcome {
        let patience = Some(patience.unwrap_or(PATIENCE));
        let call = Call { url: &self.url, headers: &self.headers, body: &payload.bytes, patience };
        let reply = self.client.post(&call);
        seen.push(Exchange::post(&call, reply.as_ref(), |name| settings::NO_SECRET.contains(&name), &self.hidden));
        match reply {
            Ok(reply) => self.answered(&reply, payload.bytes.len()),
            Err(error) => self.unanswered(&error),
        }
    }

    fn budget(&self) -> Option<Duration> {
        self.budget
    }
}

/// What one request is in OTLP.
fn dialect(resource: Vec<Attribute>) -> Dialect {
    Box::new(move |trace, _| {
        let mut payloads = Vec::new();
        encode(&resource, std::slice::from_ref(trace), LARGEST_BODY, false, &mut payloads);
        payloads
    })
}

/// The secrets in the address and in the headers.
fn hidden(url: &str, headers: &[(String, String)]) -> Hidden {
    let secret = headers.iter().filter(|(name, _)| !settings::NO_SECRET.contains(&name.as_str()));
    Hidden::of(url, secret.map(|(_, value)| value.as_str()))
}

impl OtlpHttp {
    /// 2xx is success, whatever the body; 429, 502, 503 and 504 may be tried again; everything else may not.
    fn answered(&self, reply: &Reply, sent: usize) -> Outcome {
        let said = self.said(&reply.body);
        let problem = |what: &str, next: &str| {
            let text = format!("{} answered {what}{}; next: {next}", shown(&self.url), in_brackets(&said));
            Problem { kind: reply.status.to_string(), text }
        };
        match reply.status {
            _ if reply.too_long => Outcome::Refused(problem(
                &format!("{} with more than 4 MiB", reply.status),
                "check that an OTLP receiver listens there",
            )),
            200..=299 => match partial_success(&reply.body) {
                None => Outcome::Delivered,
                Some((0, message)) => {
                    let message = self.readable(&message);
                    let text = format!("{} took everything, but says: {message}", shown(&self.url));
                    Outcome::Partly { rejected: 0, said: Problem { kind: "warning".to_owned(), text } }
                }
                Some((rejected, message)) => {
                    let message = self.readable(&message);
                    let text = format!(
                        "{} rejected {rejected} spans: {}; next: they are lost and counted as refused, mend what it names",
                        shown(&self.url),
                        if message.is_empty() { "it does not say why" } else { &message }
                    );
                    Outcome::Partly { rejected, said: Problem { kind: "partial success".to_owned(), text } }
                }
            },
            429 | 502 | 503 | 504 => Outcome::Later {
                after: reply.retry_after,
                said: problem(
                    &reply.status.to_string(),
                    "nothing; the batch is sent again for a while, and dropped and counted if that does not help",
                ),
            },
            300..=399 => {
                let to = reply.location.as_deref().map_or_else(String::new, |to| format!(" to {}", shown(to)));
                let next =
                    format!("redirects are not followed with a key; set {} to the final address", self.url_origin);
                Outcome::Refused(problem(&format!("{}, a redirect{to}", reply.status), &next))
            }
            status => Outcome::Refused(problem(&status.to_string(), &self.next_step(status, &said, sent))),
        }
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
        let url = shown(&self.url);
        let origin = &self.url_origin;
        let proxy = self.client.proxy().map_or_else(String::new, |proxy| format!(", or at the proxy {proxy}"));
        let (kind, text) = match error {
            CallError::Refused => (
                "refused",
                format!(
                    "{url}: nobody listens there{proxy}; next: start the receiver, or mend {origin} (inside a container, \
                     localhost is the container)"
                ),
            ),
            CallError::UnknownHost => {
                ("host", format!("{url}: this host name has no address; next: mend {origin}, or check DNS"))
            }
            CallError::Timeout => (
                "timeout",
                format!(
                    "{url}: no answer in time; next: check the network, or raise OTEL_EXPORTER_OTLP_TIMEOUT (milliseconds)"
                ),
            ),
            CallError::Closed => (
                "closed",
                format!("{url}: the connection ended before an answer came; next: look at the receiver's log"),
            ),
            CallError::Tls(why) => (
                "tls",
                format!(
                    "{url}: TLS failed: {why}; next: check http/https in {origin}, or OTEL_EXPORTER_OTLP_CERTIFICATE"
                ),
            ),
            CallError::NotHttp(why) => (
                "http",
                format!(
                    "{url}: what answers is not HTTP/1.1 ({why}); next: port 4317 speaks gRPC, OTLP over HTTP has 4318"
                ),
            ),
            CallError::Other(why) => ("other", format!("{url}: {why}; next: check {origin}")),
        };
        let problem = Problem { kind: kind.to_owned(), text };
        match error {
            CallError::Closed => Outcome::Closed(problem),
            CallError::NotHttp(_) | CallError::Tls(_) => Outcome::Refused(problem),
            _ => Outcome::Later { after: None, said: problem },
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
        one_line(&self.hidden.without(text.trim().to_owned()))
    }

    /// How long the key is, and its last four characters if it can spare them.
    fn described_key(&self) -> Option<String> {
        let (_, key) = self.headers.iter().find(|(name, _)| name == settings::TEAM)?;
        Some(described_secret(key))
    }
}

fn in_brackets(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
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

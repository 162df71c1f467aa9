//! AWS X-Ray: a segment document for every request, as a UDP datagram to the X-Ray daemon.
//!
//! In: a batch of finished traces. Out: one datagram a trace, more only for one that is too large.
//!
//! ```text
//! {"format":"json","version":1}                       header, a newline, the document
//! {"id":"70de5b6f19ff9a0a","trace_id":"1-581cf771-a006649127e371903a2de979","name":"backend-flask",
//!  "start_time":1478293361.271,"end_time":1478293361.449,
//!  "http":{"request":{"method":"GET","url":"http://localhost:4567/api/activities/@andrewbrown",
//!    "client_ip":"172.19.0.1"},"response":{"status":200,"content_length":217}},
//!  "aws":{"xray":{"sdk":"cruddur-xray for Rust","sdk_version":"0.1.0","sampling_rule_name":"Cruddur"}},
//!  "subsegments":[{"id":"53995c3f42cd8ad8","name":"user_activities","start_time":1478293361.272,...}]}
//! ```
//!
//! What surprises in it:
//!
//! - The daemon does not read the document, and X-Ray answers nothing. A name with a `*` or a bracket in it, a `Root` that
//!   is no id: the segment is gone, and only the daemon's log tells. So names, ids and lengths are made right here.
//! - `id` and `trace_id` come first and there are no blanks: the daemon looks for `"id":"` in the text when it has to say
//!   which document was refused.
//! - The trace id is the one of OTLP, spelled with dashes.
//! - An exception stands in the subsegment where it happened; the segment only names its id.
//! - Attributes are "annotations" (indexed, 50 a trace, keys without dots); the rest is "metadata" (not indexed).
//! - A document may have 64 kB. One that would have more sends its subsegments on their own, then goes without metadata.
//!
//! The daemon and AWS's X-Ray SDKs are in maintenance mode since February 2026; AWS points to OpenTelemetry.
//!
//! Specification: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon>.

mod cause;
mod encode;
mod explain;
mod rules;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::encode::{Documents, encode};
use super::{Backend, Dialect, Outcome, Payload, Plugin};
use crate::delivery::Problem;
use crate::trace::FinishedTrace;
use crate::wire::exchange::Exchange;
use crate::wire::udp::{DatagramSender, HostPort, SendError, Sent};

/// `[xray]`.
pub const PLUGIN: Plugin =
    Plugin { name: NAME, toml: settings::TOML, plan: settings::plan, explain: Some(explain::explain) };

const NAME: &str = "xray";
/// How long to wait before a daemon that did not listen is tried again. Other machines (and containers) say only about
/// once a second that a port is closed; whoever asks more often takes their silence for success.
const TRY_AGAIN: Duration = Duration::from_millis(1300);
/// For so long after a refusal nothing is sent. Less than the shortest wait: the first one, a second, less a fifth.
const QUIET: Duration = Duration::from_millis(750);

struct XRayUdp {
    documents: Documents,
    sender: DatagramSender,
    daemon: HostPort,
    /// What a delivery is shown to go to: `udp 127.0.0.1:2000`.
    to: String,
    /// Where the daemon's address came from.
    daemon_origin: String,
    /// How many spans the last datagram had.
    last_items: usize,
    /// The last refusal: what was said, and when.
    refused: Option<(Instant, Problem)>,
}

impl Backend<FinishedTrace> for XRayUdp {
    fn encode(&self, batch: &[Arc<FinishedTrace>]) -> Vec<Payload> {
        let mut payloads = Vec::with_capacity(batch.len());
        for trace in batch {
            encode(&self.documents, trace, &mut payloads);
        }
        payloads
    }

    fn deliver(&mut self, payload: &Payload, _: Option<Duration>, seen: &mut Vec<Exchange>) -> Outcome {
        // At the end of the program the waits are cut short, and all that waits would go to nobody, and count as delivered.
        if let Some((at, said)) = &self.refused
            && at.elapsed() < QUIET
        {
            return Outcome::Later { after: None, said: said.clone() };
        }
        self.refused = None;
        let sent = self.sender.send(&payload.bytes);
        if matches!(sent, Ok(_) | Err(SendError::Refused(_))) {
            seen.push(Exchange::one_way(self.to.clone()));
        }
        let last_items = std::mem::replace(&mut self.last_items, if sent.is_ok() { payload.items } else { 0 });
        let (daemon, origin) = (&self.daemon, &self.daemon_origin);
        let problem = |kind: &str, text: String| Problem { kind: kind.to_owned(), text };
        let later = |said| Outcome::Later { after: None, said };
        match sent {
            Ok(Sent::Yes) => Outcome::Delivered,
            Ok(Sent::AfterRefusal) => {
                let text = format!("{daemon}: nobody listened there for a moment; the segment before is lost");
                Outcome::DeliveredAfterLoss { lost: last_items, said: problem("lost", text) }
            }
            Err(SendError::Refused(address)) => {
                let said = self.nobody_listens(address);
                self.refused = Some((Instant::now(), said.clone()));
                later(said)
            }
            Err(SendError::UnknownHost(host)) => later(problem(
                "host",
                format!("{host}: this host name has no address; next: start that container, or mend {origin}"),
            )),
            Err(SendError::TooBig) => {
                let text = format!("a datagram of {} bytes is too large for the network", payload.bytes.len());
                Outcome::Refused(problem("too big", text))
            }
            Err(SendError::Other(why)) => later(problem("other", format!("{why}; next: check {origin}"))),
        }
    }

    fn complaint(&mut self) -> Option<Problem> {
        self.sender.refused().map(|address| self.nobody_listens(address))
    }

    /// Segments wait in the queue until the daemon is back; what the queue cannot hold is dropped and counted.
    fn budget(&self) -> Option<Duration> {
        None
    }

    fn longest_wait(&self) -> Duration {
        TRY_AGAIN
    }
}

/// What one request is as segment documents.
fn dialect(documents: Documents) -> Dialect {
    Box::new(move |trace, _| {
        let mut payloads = Vec::new();
        encode(&documents, trace, &mut payloads);
        payloads
    })
}

impl XRayUdp {
    fn nobody_listens(&self, address: SocketAddr) -> Problem {
        let (daemon, origin) = (&self.daemon, &self.daemon_origin);
        let text = format!(
            "{daemon} ({address}): no daemon listens there; next: start the X-Ray daemon, or mend {origin} (inside a container, \
             127.0.0.1 is the container)"
        );
        Problem { kind: "refused".to_owned(), text }
    }
}

#[cfg(test)]
mod tests;

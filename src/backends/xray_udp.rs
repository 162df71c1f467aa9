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
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/xray_udp.rs"]
pub(crate) mod fuzz;
mod rules;
mod sampler;
mod settings;
mod tree;
mod wildcard;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Plugin;
use crate::delivery::{Loss, Outcome, Payload, Problem, Transport};
use crate::text::Message;
use crate::wire::recorded::RecordedCall;
use crate::wire::udp::{DatagramSender, HostPort, SendError, SendOutcome};

/// `[xray]`.
pub const PLUGIN: Plugin =
    Plugin { name: NAME, section: &settings::XRay::SECTION, plan: settings::plan, explain: Some(explain::explain) };

const NAME: &str = "xray";
/// How long to wait before a daemon that did not listen is tried again. Other machines (and containers) say only about
/// once a second that a port is closed; whoever asks more often takes their silence for success.
const TRY_AGAIN: Duration = Duration::from_millis(1300);
/// Nothing is sent for this long after a refusal. It must stay below the shortest wait: 1 s minus 20 % jitter.
const QUIET: Duration = Duration::from_millis(750);

/// Sends datagrams to the daemon.
struct XRayUdp {
    sender: DatagramSender,
    daemon: HostPort,
    /// Where the daemon's address came from.
    daemon_origin: String,
    /// How many spans the last datagram had.
    last_items: usize,
    /// The last refusal.
    refused: Option<(Instant, Problem)>,
    /// The datagram before the last one, if it was lost.
    loss: Option<Loss>,
}

impl Transport for XRayUdp {
    fn deliver(&mut self, payload: &Payload, _: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let later = |problem| Outcome::Later { after: None, problem };
        // At the end of the program the waits are cut short, and all that waits would be sent to nobody, and count as delivered.
        if let Some((at, problem)) = &self.refused
            && at.elapsed() < QUIET
        {
            return later(problem.clone());
        }
        self.refused = None;
        let sent = self.sender.send(&payload.bytes);
        if matches!(sent, Ok(_) | Err(SendError::ConnectionRefused(_))) {
            calls.push(RecordedCall::one_way(format!("udp {}", self.daemon)));
        }
        let last_items = std::mem::replace(&mut self.last_items, if sent.is_ok() { payload.items } else { 0 });
        let (daemon, origin) = (&self.daemon, &self.daemon_origin);
        match sent {
            Ok(SendOutcome::Sent) => Outcome::Delivered,
            Ok(SendOutcome::SentAfterRefusal) => {
                let what = format!("{daemon}: nobody listened there for a moment; the segment before is lost");
                self.loss = Some(Loss { items: last_items, problem: Problem::new("lost", what) });
                Outcome::Delivered
            }
            Err(SendError::ConnectionRefused(address)) => {
                let problem = self.refusal(address);
                self.refused = Some((Instant::now(), problem.clone()));
                later(problem)
            }
            Err(SendError::UnknownHost(host)) => {
                let what = Message::new(format!("{host}: this host name has no address"));
                later(Problem::new("host", what.next(format!("start that container, or mend {origin}"))))
            }
            Err(SendError::TooBig) => {
                let what = format!("a datagram of {} bytes is too large for the network", payload.bytes.len());
                Outcome::Refused(Problem::new("too big", what))
            }
            Err(SendError::Other(why)) => {
                later(Problem::new("other", Message::new(why).next(format!("check {origin}"))))
            }
        }
    }

    fn take_loss(&mut self) -> Option<Loss> {
        self.loss.take()
    }

    fn late_refusal(&mut self) -> Option<Problem> {
        self.sender.refused().map(|address| self.refusal(address))
    }

    /// Segments wait in the queue until the daemon is back; what the queue cannot hold is dropped and counted.
    fn max_elapsed_time(&self) -> Option<Duration> {
        None
    }

    fn max_wait(&self) -> Duration {
        TRY_AGAIN
    }
}

impl XRayUdp {
    fn refusal(&self, address: SocketAddr) -> Problem {
        let (daemon, origin) = (&self.daemon, &self.daemon_origin);
        let what = Message::new(format!("{daemon} ({address}): no daemon listens there"));
        let next = format!("start the X-Ray daemon, or mend {origin} (inside a container, 127.0.0.1 is the container)");
        Problem::new("refused", what.next(next))
    }
}

#[cfg(test)]
mod tests;

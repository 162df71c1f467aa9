//! AWS X-Ray: sends a segment document for every request, as a UDP datagram to the X-Ray daemon.
//! This file sends the datagrams. `encode.rs` and `tree.rs` write the documents, and `sampler.rs`
//! decides which requests are sent.
//!
//! In: a batch of finished traces. Out: one datagram per trace, or several if it is too large for
//! one.
//!
//! ```text
//! {"format":"json","version":1}                       header, a newline, the document
//! {"id":"70de5b6f19ff9a0a","trace_id":"1-581cf771-a006649127e371903a2de979",
//!  "name":"backend-flask","start_time":1478293361.271,"end_time":1478293361.449,
//!  "http":{"request":{"method":"GET","url":"http://localhost:4567/api/activities/@andrewbrown",
//!    "client_ip":"172.19.0.1"},"response":{"status":200,"content_length":217}},
//!  "aws":{"xray":{"sdk":"cruddur-xray for Rust","sdk_version":"0.1.0",
//!    "sampling_rule_name":"Cruddur"}},
//!  "subsegments":[{"id":"53995c3f42cd8ad8","name":"user_activities",
//!    "start_time":1478293361.272,...}]}
//! ```
//!
//! Some details are surprising:
//!
//! - The daemon does not check the document, and X-Ray sends no response. X-Ray drops a segment
//!   with a `*` or a bracket in its name, or with a trace id from an invalid `Root`. Only the
//!   daemon's log reports it. So the names, ids and lengths are made valid here.
//! - `id` and `trace_id` come first, and there are no blanks. To report a refused document, the
//!   daemon searches its text for `"id":"`.
//! - The trace id is the same as in OTLP, written with dashes.
//! - An exception is in the subsegment in which it happened. The segment contains only its id.
//! - Attributes are "annotations" (indexed, at most 50 per trace, keys without dots). The others
//!   are "metadata" (not indexed).
//! - A document may have 64 kB. The subsegments of a larger one are sent as documents of their own.
//!   If the rest is still too large, its metadata is left out.
//!
//! The daemon and AWS's X-Ray SDKs have been in maintenance mode since February 2026. AWS
//! recommends OpenTelemetry.
//!
//! Specification:
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon>.

mod annotations;
mod cause;
mod encode;
mod explain;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/xray_udp.rs"]
pub(crate) mod fuzz;
mod rule_file;
mod rules;
mod sampler;
mod settings;
mod tree;
mod wildcard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plugin;
use crate::delivery::{Loss, Outcome, Payload, Problem, Transport};
use crate::text::Message;
use crate::wire::recorded::RecordedCall;
use crate::wire::udp::{DatagramSender, HostPort, SendError, SendOutcome};

pub(in crate::backends) use settings::is_on;

/// `[xray]`.
pub const PLUGIN: Plugin =
    Plugin { name: NAME, section: &settings::XRay::SECTION, plan: settings::plan, explain: Some(explain::explain) };

const NAME: &str = "xray";
/// How long to wait before a daemon that did not listen is tried again. Other machines (and
/// containers) report a closed port only about once a second; a datagram sent sooner would count as
/// delivered.
const TRY_AGAIN: Duration = Duration::from_millis(1300);
/// Time after a refusal in which nothing is sent. It must be shorter than the shortest retry wait:
/// 1 s minus 20 % jitter.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(750);

/// Sends datagrams to the daemon.
struct XRayUdp {
    sender: DatagramSender,
    daemon: HostPort,
    /// The daemon's address, as the page shows it: `udp 127.0.0.1:2000`.
    name: Arc<str>,
    /// Setting that the daemon's address came from. Error messages name it.
    daemon_origin: String,
    /// Number of spans in the last datagram.
    last_items: usize,
    /// Last refusal, and its time.
    refused: Option<(Instant, Problem)>,
    /// Loss of the datagram before the last one, until [`Transport::take_loss`] returns it.
    loss: Option<Loss>,
}

impl Transport for XRayUdp {
    fn deliver(&mut self, payload: &Payload, _: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let later = |problem| Outcome::Later { after: None, problem };
        // At the end of the program the waits are cut short: all queued segments would be sent to a
        // closed port, and count as delivered.
        if let Some((at, problem)) = &self.refused
            && at.elapsed() < PAUSE_AFTER_REFUSAL
        {
            return later(problem.clone());
        }
        self.refused = None;
        let sent = self.sender.send(&payload.bytes);
        if matches!(sent, Ok(_) | Err(SendError::ConnectionRefused(_))) {
            calls.push(RecordedCall::one_way(Arc::clone(&self.name)));
        }
        let last_items = std::mem::replace(&mut self.last_items, if sent.is_ok() { payload.items } else { 0 });
        let (daemon, origin) = (&self.daemon, &self.daemon_origin);
        match sent {
            Ok(SendOutcome::Sent) => Outcome::Delivered,
            Ok(SendOutcome::SentAfterRefusal) => {
                let what = format!("connection refused by udp {daemon} for a moment; the previous segment is lost");
                self.loss = Some(Loss { items: last_items, problem: Problem::new("lost", what) });
                Outcome::Delivered
            }
            Err(SendError::ConnectionRefused(address)) => {
                let problem = self.refusal(address);
                self.refused = Some((Instant::now(), problem.clone()));
                later(problem)
            }
            Err(SendError::UnknownHost(host)) => {
                let what = Message::new(format!("DNS lookup failed for {host}"));
                later(Problem::new("host", what.next(format!("start the container of that name, or correct {origin}"))))
            }
            Err(SendError::TooBig) => {
                let what = format!(
                    "message too long: the network does not accept a datagram of {} bytes",
                    payload.bytes.len()
                );
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

    /// Returns no limit: segments wait in the queue until the daemon is back. Segments that do not
    /// fit into the queue are dropped and counted.
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
        let mut what = format!("connection refused by udp {daemon}");
        if daemon.to_string() != address.to_string() {
            what.push_str(&format!(" ({address})"));
        }
        let next =
            format!("start the X-Ray daemon, or correct {origin} (inside a container, 127.0.0.1 is the container)");
        Problem::new("refused", Message::new(what).next(next))
    }
}

#[cfg(test)]
mod tests;

//! Interfaces of a backend. An [`Encoder`] turns a batch into bytes and does no I/O. A
//! [`Transport`] sends the bytes and returns the result. OpenTelemetry calls the two together an
//! exporter.

use std::sync::Arc;
use std::time::Duration;

use super::stop::Stop;
use crate::logging::LogLine;
use crate::settings::{BatchLimits, Finding, Origin, Setting, SpoolLimits, Values};
use crate::text::Message;
use crate::trace::FinishedTrace;
use crate::trace::id::TraceId;
use crate::trace::sampler::BackendSampler;
use crate::wire::recorded::RecordedCall;

/// Encodes a batch. An encoder has no client, no clock and no credentials, so the worker, the page,
/// `check` and `explain` can share one.
pub trait Encoder<T>: Send + Sync {
    /// Encodes a batch into one or more payloads. `clock_offset`: see [`Transport::clock_offset`].
    fn encode(&self, batch: &[Arc<T>], clock_offset: i64) -> Vec<Payload>;
}

/// An encoder of traces or of log lines.
#[derive(Clone)]
pub enum Encoding {
    /// Finished traces.
    Traces(Arc<dyn Encoder<FinishedTrace>>),
    /// Log lines.
    Lines(Arc<dyn Encoder<LogLine>>),
}

/// Sends payloads to one destination. The transport does all I/O of a backend.
pub trait Transport: Send {
    /// Sends one payload, within `timeout` if there is one, and returns the result. Adds the calls
    /// and their responses to `calls`, without secrets.
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome;

    /// Called before a batch is encoded. Encoders do no I/O, so a transport can learn here what its
    /// encoder must know.
    fn before_encoding(&self) {}

    /// Returns the time limit for all attempts to send one payload. `None` means no limit.
    fn max_elapsed_time(&self) -> Option<Duration>;

    /// Returns the longest wait between two attempts. The server may ask for a longer one.
    fn max_wait(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Returns true if payloads are compressed with gzip before they are sent.
    fn compresses(&self) -> bool {
        false
    }

    /// Returns the uncompressed body of a payload for the destination in force, if it was encoded with
    /// other settings and names the destination.
    fn readdress(&self, body: Vec<u8>) -> Vec<u8> {
        body
    }

    /// Returns the server's clock minus our clock, in milliseconds, as far as it is known.
    fn clock_offset(&self) -> i64 {
        0
    }

    /// Returns the loss of the payload before the last one, after it was reported as delivered.
    /// Only UDP learns of a loss this late, because it has no responses.
    fn take_loss(&mut self) -> Option<Loss> {
        None
    }

    /// Returns the refusal of the last payload, if it came after the payload was reported as
    /// delivered. Used by `cruddur check`, which waits for it.
    fn late_refusal(&mut self) -> Option<Problem> {
        None
    }
}

/// Periodic work of a backend on its own thread, for example to fetch sampling rules.
pub trait BackgroundTask: Send {
    /// Runs until `stop` is requested.
    fn run(self: Box<Self>, stop: &Stop);

    /// Does the work once, for `cruddur check`, and returns the findings.
    fn check(&mut self) -> Vec<Finding>;

    /// Returns the time limit of [`Self::check`].
    fn check_timeout(&self) -> Duration;
}

/// Bytes of one request or datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Payload {
    /// Bytes exactly as they are sent.
    pub bytes: Vec<u8>,
    /// Number of spans or lines.
    pub items: usize,
    /// Traces of the spans or lines.
    pub traces: Vec<TraceId>,
    /// Description of the parts that were left out because the payload was too large.
    pub trimmed: Option<Problem>,
}

/// Result of sending a payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All of it was accepted.
    Delivered,
    /// All of it was accepted, with a warning.
    Warned(Problem),
    /// A part was rejected, the rest was accepted. Never retried.
    Partly {
        /// Number of rejected spans or lines.
        rejected: usize,
        /// The server's reason.
        problem: Problem,
    },
    /// The payload was rejected. A retry would not help.
    Refused(Problem),
    /// The payload was rejected for a reason that may pass: a wrong key or address, or a fault of the
    /// server. With a spool it is stored; without one it counts as refused, and is not retried.
    RefusedForNow(Problem),
    /// The status says success, but the response does not come from the expected service: a log-in
    /// page, for example. Nothing confirms that the payload was accepted. Never retried.
    Unconfirmed(Problem),
    /// The connection ended before a response came. Retried at once, but only one time.
    Closed(Problem),
    /// The destination throttled us or was unreachable. Retried while there is time.
    Later {
        /// Wait that the server asked for.
        after: Option<Duration>,
        /// Reason of the failure.
        problem: Problem,
    },
}

/// A payload that was lost after it was reported as delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// Number of spans in the payload.
    pub items: usize,
    /// Reason of the loss.
    pub problem: Problem,
}

/// Reason for a failed delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Kind of the problem. Problems of the same kind are logged once.
    pub kind: String,
    /// The problem, its place, and the next step.
    pub message: Message,
}

/// Configuration of a backend, made from the settings.
pub struct Plan {
    /// Name of the backend and of its table in telemetry.toml.
    pub name: &'static str,
    /// Encoder. The page uses it even if the backend is off.
    pub encoding: Encoding,
    /// False if the backend only writes to the output of this process.
    pub is_remote: bool,
    /// State of the backend.
    pub state: State,
    /// Transport, if the backend is on.
    pub transport: Option<Box<dyn Transport>>,
    /// Reason for the state. Includes the next step if something is missing.
    pub reason: String,
    /// Destination, without secrets.
    pub destination: String,
    /// Limits of the queue.
    pub limits: BatchLimits,
    /// Lowest level of log lines that the backend receives.
    pub level: log::LevelFilter,
    /// Sampler of the backend, if it does not use the general one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    /// Background task, if the backend needs one.
    pub task: Option<Box<dyn BackgroundTask>>,
    /// Findings about the settings of the backend.
    pub findings: Vec<Finding>,
    /// Place and limits of payloads that wait on disk, if the backend stores any.
    pub spool: Option<SpoolLimits>,
    /// Values that the plan was made from. A backend with equal values is not restarted.
    pub values: Values,
}

/// State of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Not enabled.
    Off,
    /// Enabled, but a required setting is missing.
    Waiting,
    /// Enabled and running.
    On,
}

impl Outcome {
    /// Returns the problem, unless everything was accepted without a warning.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Delivered => None,
            Self::Later { problem, .. }
            | Self::Partly { problem, .. }
            | Self::Warned(problem)
            | Self::Refused(problem)
            | Self::RefusedForNow(problem)
            | Self::Unconfirmed(problem)
            | Self::Closed(problem) => Some(problem),
        }
    }
}

impl Problem {
    /// Creates a problem.
    pub fn new(kind: impl Into<String>, message: impl Into<Message>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }
}

impl State {
    /// Returns `off`, `waiting` or `on`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::On => "on",
        }
    }
}

impl Encoding {
    /// Encodes a batch that contains only one request: its trace, or its log lines.
    pub fn encode_request(&self, trace: &Arc<FinishedTrace>, lines: &[Arc<LogLine>]) -> Vec<Payload> {
        match self {
            Self::Traces(encoder) => encoder.encode(std::slice::from_ref(trace), 0),
            Self::Lines(encoder) => encoder.encode(lines, 0),
        }
    }

    /// Returns the unit of the counts: `spans` or `lines`.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Traces(_) => "spans",
            Self::Lines(_) => "lines",
        }
    }
}

impl Plan {
    /// Creates the plan of a backend that is off.
    pub fn new(name: &'static str, encoding: Encoding, limits: BatchLimits, values: Values) -> Self {
        Self {
            name,
            encoding,
            is_remote: true,
            state: State::Off,
            transport: None,
            reason: String::new(),
            destination: String::new(),
            limits,
            level: log::LevelFilter::Off,
            sampler: None,
            task: None,
            findings: Vec::new(),
            spool: None,
            values,
        }
    }

    /// Sets the reason of a backend that is not enabled.
    pub fn off(self, enabled: &Setting<bool>) -> Self {
        let reason = match &enabled.origin {
            Origin::Default => {
                format!("enabled is not set; put enabled = true under [{}] in telemetry.toml", self.name)
            }
            origin => format!("enabled = false at {origin}"),
        };
        Self { reason, ..self }
    }

    /// Sets the state to waiting, because a required setting is missing.
    pub fn waiting(self, missing: &Message) -> Self {
        Self { state: State::Waiting, reason: missing.to_string(), ..self }
    }

    /// Takes back what [`Self::on`] and the backend have set up.
    pub fn deactivate(&mut self, state: State, reason: impl Into<String>) {
        (self.state, self.reason) = (state, reason.into());
        (self.transport, self.sampler, self.task) = (None, None, None);
    }

    /// Sets the state to on.
    pub fn on(self, transport: impl Transport + 'static, reason: String) -> Self {
        Self { state: State::On, transport: Some(Box::new(transport)), reason, ..self }
    }
}

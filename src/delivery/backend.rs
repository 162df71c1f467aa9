//! The contract of a backend. It has two halves, so that what is pure is so by its type: an [`Encoder`] makes bytes of a
//! batch, a [`Transport`] sends them and says what became of them. (OpenTelemetry calls the two together an exporter.)

use std::sync::Arc;
use std::time::Duration;

use super::worker::Stop;
use crate::logging::LogLine;
use crate::settings::{BatchLimits, Finding, Origin, Setting, Values};
use crate::text::Message;
use crate::trace::FinishedTrace;
use crate::trace::id::TraceId;
use crate::trace::sampler::BackendSampler;
use crate::wire::recorded::RecordedCall;

/// Makes the bytes that carry a batch. It holds no client, no clock and no credentials, so the worker, the page, `check` and
/// `explain` share one.
pub trait Encoder<T>: Send + Sync {
    /// One or more payloads. `clock_offset` is what the other side's clock shows more than ours, in milliseconds, as far as
    /// the transport knows.
    fn encode(&self, batch: &[Arc<T>], clock_offset: i64) -> Vec<Payload>;
}

/// An encoder, by what it takes.
#[derive(Clone)]
pub enum Encoding {
    /// Finished traces.
    Traces(Arc<dyn Encoder<FinishedTrace>>),
    /// Log lines.
    Lines(Arc<dyn Encoder<LogLine>>),
}

/// Sends payloads to one destination. The only part of a backend that does I/O.
pub trait Transport: Send {
    /// Sends one payload and returns what the other side made of it, within `timeout` if there is one. The calls and their
    /// answers are added to `calls`, without secrets.
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome;

    /// How long all attempts at one payload may take together; `None`: there is no limit.
    fn max_elapsed_time(&self) -> Option<Duration>;

    /// The longest wait between two attempts, unless the other side asks for a longer one.
    fn max_wait(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Whether payloads are compressed with gzip before they are sent.
    fn compresses(&self) -> bool {
        false
    }

    /// What the other side's clock shows more than ours, in milliseconds.
    fn clock_offset(&self) -> i64 {
        0
    }

    /// The payload before the last one, if it turned out to be lost after it was reported as delivered. Only a wire without
    /// answers learns of it so late.
    fn take_loss(&mut self) -> Option<Loss> {
        None
    }

    /// Whether the last payload was refused after it was reported as delivered; for `cruddur check`, which waits for it.
    fn late_refusal(&mut self) -> Option<Problem> {
        None
    }
}

/// Something that a backend does all the time, whether there is anything to send or not, on a thread of its own.
pub trait BackgroundTask: Send {
    /// Works until `stop` says that its backend ends.
    fn run(self: Box<Self>, stop: &Stop);

    /// Does its work once, for `cruddur check`, and returns how that went.
    fn check(&mut self) -> Vec<Finding>;
}

/// Bytes that are sent together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Payload {
    /// Exactly what goes on the wire.
    pub bytes: Vec<u8>,
    /// How many spans or lines they carry.
    pub items: usize,
    /// The traces that these belong to.
    pub traces: Vec<TraceId>,
    /// What had to be left out to make them fit, if anything had to.
    pub trimmed: Option<Problem>,
}

/// What became of a payload. Not an error type: a refusal is an answer too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All of it was accepted.
    Delivered,
    /// All of it was accepted, with a warning.
    Warned(Problem),
    /// It was accepted except for some. Never sent again.
    Partly {
        /// How many spans or lines were not accepted.
        rejected: usize,
        /// What the other side said.
        problem: Problem,
    },
    /// It was not accepted and never will be.
    Refused(Problem),
    /// The connection ended before an answer came: opened again at once, a single time.
    Closed(Problem),
    /// Not now: throttled, or unreachable. Tried again while there is time.
    Later {
        /// When the other side wants to be asked again.
        after: Option<Duration>,
        /// What happened.
        problem: Problem,
    },
}

/// A payload that was lost after it was reported as delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// How many spans it carried.
    pub items: usize,
    /// What happened.
    pub problem: Problem,
}

/// Something that kept a batch from its destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Problems of one kind are reported once.
    pub kind: String,
    /// What, where, what next.
    pub message: Message,
}

/// A backend as the settings want it.
pub struct Plan {
    /// Its name: its table in telemetry.toml.
    pub name: &'static str,
    /// Makes its bytes, whether it runs or not.
    pub encoding: Encoding,
    /// False if it only writes to this process's own output.
    pub is_remote: bool,
    /// Whether it runs.
    pub state: PlannedState,
    /// Why it does, or does not; with the next step if something is missing.
    pub reason: String,
    /// Where it sends to, without secrets.
    pub destination: String,
    /// How its queue is filled and emptied.
    pub limits: BatchLimits,
    /// The least important level of log lines that it takes.
    pub level: log::LevelFilter,
    /// Its own sampler, if it has one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    /// What has to go on beside the worker.
    pub task: Option<Box<dyn BackgroundTask>>,
    /// What is remarkable about its settings, as far as that can be seen without asking anything.
    pub findings: Vec<Finding>,
    /// The values it was made from. Equal ones make an equal backend.
    pub values: Values,
}

/// Whether a backend runs, and with what.
pub enum PlannedState {
    /// It is not wanted.
    Off,
    /// It is wanted, but something is missing.
    Waiting,
    /// It runs.
    On(Box<dyn Transport>),
}

/// Whether a backend runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It is not wanted.
    Off,
    /// It is wanted, but something is missing.
    Waiting,
    /// It runs.
    On,
}

impl Problem {
    /// A problem of that kind.
    #[must_use]
    pub fn new(kind: impl Into<String>, message: impl Into<Message>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }
}

impl State {
    /// `off`, `waiting` or `on`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::On => "on",
        }
    }
}

impl PlannedState {
    /// The state without what it needs to run.
    #[must_use]
    pub fn state(&self) -> State {
        match self {
            Self::Off => State::Off,
            Self::Waiting => State::Waiting,
            Self::On(_) => State::On,
        }
    }
}

impl Encoding {
    /// The payloads of one request, alone in its batch: its trace, or its log lines.
    #[must_use]
    pub fn of_request(&self, trace: &Arc<FinishedTrace>, lines: &[Arc<LogLine>]) -> Vec<Payload> {
        match self {
            Self::Traces(encoder) => encoder.encode(std::slice::from_ref(trace), 0),
            Self::Lines(encoder) => encoder.encode(lines, 0),
        }
    }

    /// What is counted: spans or lines.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Traces(_) => "spans",
            Self::Lines(_) => "lines",
        }
    }
}

impl Plan {
    /// A backend that does not run yet.
    #[must_use]
    pub fn new(name: &'static str, encoding: Encoding, limits: BatchLimits, values: Values) -> Self {
        Self {
            name,
            encoding,
            is_remote: true,
            state: PlannedState::Off,
            reason: String::new(),
            destination: String::new(),
            limits,
            level: log::LevelFilter::Off,
            sampler: None,
            task: None,
            findings: Vec::new(),
            values,
        }
    }

    /// The backend does not run, because its `enabled` says so.
    #[must_use]
    pub fn off(self, enabled: &Setting<bool>) -> Self {
        let reason = match &enabled.origin {
            Origin::Default => {
                format!("enabled is not set; put enabled = true under [{}] in telemetry.toml", self.name)
            }
            origin => format!("enabled = false at {origin}"),
        };
        Self { reason, ..self }
    }

    /// The backend cannot run, because something is missing.
    #[must_use]
    pub fn waiting(self, missing: &Message) -> Self {
        Self { state: PlannedState::Waiting, reason: missing.to_string(), ..self }
    }

    /// The backend runs.
    #[must_use]
    pub fn on(self, transport: impl Transport + 'static, reason: String) -> Self {
        Self { state: PlannedState::On(Box::new(transport)), reason, ..self }
    }
}

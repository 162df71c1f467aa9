//! Stage 4: a batch becomes somebody's bytes. One file a backend, one line for each in [`BACKENDS`].
//!
//! In: a batch of finished traces. Out: [`Payload`]s, the exact bytes that leave, and an [`Outcome`] for each.
//!
//! A backend's file holds, in this order: what goes in and out with a few real bytes, its settings, its encoder, its
//! delivery, its tests. Encoding is pure and cannot fail; delivery is the only I/O, and goes through [`crate::wire`].

pub mod cloudwatch_logs;
pub mod console;
pub mod otlp_http;
pub mod xray_udp;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::delivery::{BatchLimits, Problem, Stop};
use crate::logging::LogLine;
use crate::printable::printable;
use crate::settings::{Finding, Origin, Reading, Setting, Settings, SettingsError, Sources, Table};
use crate::trace::FinishedTrace;
use crate::trace::id::TraceId;
use crate::trace::sampler::BackendSampler;
use crate::wire::exchange::Exchange;

/// All backends there are.
pub const BACKENDS: &[Plugin] = &[console::PLUGIN, otlp_http::PLUGIN, xray_udp::PLUGIN, cloudwatch_logs::PLUGIN];

/// A destination for finished traces, or for log lines.
pub trait Backend<T>: Send {
    /// The bytes that carry this batch, in one or more payloads. Pure: no clock, no I/O, no failure.
    fn encode(&self, batch: &[Arc<T>]) -> Vec<Payload>;

    /// Sends one payload and says what the other side made of it. It returns within `patience`, if there is a limit.
    /// What left and what came back goes to `seen`, without secrets.
    fn deliver(&mut self, payload: &Payload, patience: Option<Duration>, seen: &mut Vec<Exchange>) -> Outcome;

    /// What has come back by now, where the wire has no answers: a complaint about what was taken for delivered.
    fn complaint(&mut self) -> Option<Problem> {
        None
    }

    /// Whether it sends anything to anybody else.
    fn is_remote(&self) -> bool {
        true
    }

    /// How long all tries of one payload may take together; `None`: for ever.
    fn budget(&self) -> Option<Duration>;

    /// The longest wait between two tries, unless the other side asks for a longer one.
    fn longest_wait(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Bytes that leave together.
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
    /// It was accepted except for `rejected` spans. Never sent again.
    Partly {
        /// How many were not accepted; 0 is a mere warning.
        rejected: usize,
        /// What the other side said.
        said: Problem,
    },
    /// It was not accepted and never will be.
    Refused(Problem),
    /// The connection ended before an answer came: opened again at once, a single time.
    Closed(Problem),
    /// It was accepted, as far as one can tell; but only now it turned out that the payload before it was not.
    DeliveredAfterLoss {
        /// How many spans the payload before had.
        lost: usize,
        /// What happened to it.
        said: Problem,
    },
    /// Not now: throttled, or nobody there. Tried again while the budget lasts.
    Later {
        /// When the other side wants to be asked again.
        after: Option<Duration>,
        /// What it said.
        said: Problem,
    },
}

/// The line in [`BACKENDS`]: all that the rest of the program knows of a backend.
pub struct Plugin {
    /// Its name, and its table in `telemetry.toml`.
    pub name: &'static str,
    /// Its table as `cruddur init` writes it, with a comment on every key.
    pub toml: &'static str,
    /// Reads its table and decides whether it runs.
    pub plan: fn(&Table<'_>, &Sources, &Settings) -> Result<Plan, SettingsError>,
    /// Its part of `cruddur explain`: the bytes of a sample request, with a line on every field.
    pub explain: Option<fn() -> String>,
}

/// A backend as the settings want it.
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// Whether it runs.
    pub switch: Switch,
    /// Why it does, or does not; with the next step if something is missing.
    pub reason: String,
    /// Where it sends to, without secrets.
    pub destination: String,
    /// How its queue is filled and emptied.
    pub limits: BatchLimits,
    /// Whether it takes log lines; if not, traces.
    pub takes_lines: bool,
    /// Its own sampler, if it has one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    /// What has to go on beside the worker, on a thread of its own.
    pub companion: Option<Box<dyn Companion>>,
    /// What it makes of one request, whether it runs or not; `None` if that is no wire format.
    pub dialect: Option<Dialect>,
    /// What is remarkable about its settings, as far as that can be seen without asking anybody.
    pub findings: Vec<Finding>,
    /// The values it was made from. Equal ones make an equal backend.
    pub readings: Vec<Reading>,
}

/// What a backend makes of one request and its log lines: the payloads it would have, alone in its batch.
pub type Dialect = Box<dyn Fn(&Arc<FinishedTrace>, &[Arc<LogLine>]) -> Vec<Payload> + Send>;

/// Something that a backend does all the time, whether there is anything to send or not.
pub trait Companion: Send {
    /// Works until `stop` says that its backend ends.
    fn run(self: Box<Self>, stop: &Stop);

    /// Does its work once, for `cruddur check`, and says how that went.
    fn check(&mut self) -> Vec<Finding>;
}

/// Whether a backend runs.
pub enum Switch {
    /// It is not wanted.
    Off,
    /// It is wanted, but something is missing.
    Waiting,
    /// It runs.
    On(Sink),
}

/// A backend, by what it takes.
pub enum Sink {
    /// Finished traces.
    Traces(Box<dyn Backend<FinishedTrace>>),
    /// Log lines of this level and above.
    Lines(log::LevelFilter, Box<dyn Backend<LogLine>>),
}

impl Switch {
    /// `off`, `waiting` or `on`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::On(_) => "on",
        }
    }
}

impl Plan {
    /// A backend that does not run, because `enabled` says so. From here on it can only get better.
    fn off(name: &'static str, enabled: &Setting<bool>, limits: BatchLimits) -> Self {
        let reason = match &enabled.origin {
            Origin::Default => format!("enabled is not set; put enabled = true under [{name}] in telemetry.toml"),
            origin => format!("enabled = false at {origin}"),
        };
        Self {
            name,
            switch: Switch::Off,
            reason,
            destination: String::new(),
            limits,
            takes_lines: false,
            sampler: None,
            companion: None,
            dialect: None,
            findings: Vec::new(),
            readings: Vec::new(),
        }
    }
}

/// Reads every backend's table.
///
/// # Errors
///
/// The file has an unknown key, or a value of the wrong type.
pub fn plans(sources: &Sources, settings: &Settings) -> Result<Vec<Plan>, SettingsError> {
    let plan = |plugin: &Plugin| {
        let Settings { service_name, resource, .. } = settings;
        // What they were read from came before; these are the two that backends make use of.
        drop(sources.take_readings());
        let name = &service_name.value;
        sources.record("service_name".to_owned(), name.as_bytes(), name.clone(), service_name.origin.clone());
        sources.record("[resource]".to_owned(), format!("{resource:?}").as_bytes(), String::new(), Origin::Default);
        let table = sources.table(plugin.name)?;
        let mut plan = (plugin.plan)(&table, sources, settings)?;
        table.finish()?;
        if !settings.recording {
            plan.switch = Switch::Off;
            (plan.sampler, plan.companion) = (None, None);
            plan.reason = "OTEL_SDK_DISABLED=true switches all telemetry off".to_owned();
        }
        (plan.findings, plan.readings) = (sources.take_findings(), sources.take_readings());
        Ok(plan)
    };
    BACKENDS.iter().map(plan).collect()
}

/// Level 1: the bytes shrink to a tenth in 1 microsecond a span; level 6 takes seven times as long for a little more.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::new(1));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory cannot fail")
}

/// What somebody else wrote, as one line of a length that people read.
fn one_line(text: &str) -> String {
    let text = text.trim();
    let mut line = printable(text, LONGEST_LINE);
    if text.chars().nth(LONGEST_LINE).is_some() {
        line.push_str("...");
    }
    line
}

const LONGEST_LINE: usize = 200;

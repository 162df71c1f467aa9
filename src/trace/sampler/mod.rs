//! Sampling: decides which traces are sent to which backend, and records the reason.
//!
//! A decision is more than yes or no. Most missing traces in the course were dropped silently by a
//! sampler; here every decision carries its reason to the page and to `GET /telemetry/traces`.
//!
//! Backends share the sampler of OpenTelemetry ([`opentelemetry`]) or bring a [`BackendSampler`],
//! as X-Ray does: it has its own header, and its rules come from the AWS account.

pub mod opentelemetry;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use opentelemetry::Sampler;

/// Decision about one trace, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// True if the trace is sent. An unsampled trace still has its id and still appears on the
    /// page.
    pub sampled: bool,
    /// Reason of the decision.
    pub reason: Reason,
}

/// Reason of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Sampler that takes every trace (`always_on`) or none (`always_off`).
    Always,
    /// Decision of the caller, which the sampler follows.
    Parent,
    /// Number from the trace id: sampled when `draw < ratio`.
    Ratio {
        /// Low 64 bits of the trace id, as a number from 0 to 1.
        draw: f64,
        /// Share of traces to take.
        ratio: f64,
    },
    /// `Sampled=0` or `Sampled=1` in `X-Amzn-Trace-Id`, which overrides every rule.
    Header,
    /// Sampling rule of a backend's own sampler.
    Rule {
        /// Name of the rule: `Cruddur`, `Default`.
        name: Arc<str>,
        /// Origin of the rule.
        source: RuleSource,
        /// Part of the rule that decided.
        by: RuleDecision,
    },
}

/// Origin of a sampling rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuleSource {
    /// From X-Ray, by way of the daemon.
    Central,
    /// From `aws/json/xray.json`.
    Local,
    /// Built in: one a second and 5 %.
    BuiltIn,
}

/// Part of a sampling rule that decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleDecision {
    /// Reservoir of this second, which had room: request number `taken` of `size`.
    Reservoir {
        /// Requests taken from it in this second, including this one.
        taken: u32,
        /// Requests that it holds a second.
        size: u32,
    },
    /// One request a second, taken until X-Ray has assigned us a share of the reservoir.
    Borrowed,
    /// Random draw, because the reservoir was empty: sampled when `draw <= rate`.
    Rate {
        /// Random number from 0 to 1.
        draw: f64,
        /// Share to take of the requests that the reservoir leaves.
        rate: f64,
    },
}

/// Facts that a sampler decides from: the request before its first span.
#[derive(Clone, Copy, Debug)]
pub struct SamplingInput<'a> {
    /// `Host`, with its port.
    pub host: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// `Sampled=` of `X-Amzn-Trace-Id`.
    pub header: Option<bool>,
    /// Seconds since 1970.
    pub now: u64,
    /// Random number from 0 up to but not including 1.
    pub draw: f64,
}

/// Sampler of one backend.
pub trait BackendSampler: Send + Sync {
    /// Decides about one request. Returns the decision and the service name of the trace.
    fn decide(&self, input: &SamplingInput<'_>) -> (Decision, Arc<str>);

    /// Describes in a sentence the rules in force at `now`, in seconds since 1970.
    fn describe(&self, now: u64) -> String;

    /// Removes and returns the state that the sampler collected while it ran, for its successor.
    fn take_state(&self) -> Option<SamplerState> {
        None
    }

    /// Continues with the state of the predecessor.
    fn restore_state(&self, _: SamplerState) {}
}

/// Collected state of a sampler. Only samplers of the same type can read it.
pub type SamplerState = Box<dyn Any + Send>;

/// Decision of one backend's own sampler about a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendDecision {
    /// Name of the backend.
    pub backend: &'static str,
    /// Decision with its reason.
    pub decision: Decision,
    /// Service name of the trace in that backend.
    pub service_name: Arc<str>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.sampled { "sampled" } else { "not sampled" };
        match &self.reason {
            Reason::Always => write!(f, "{verdict}: the sampler treats all traces alike"),
            Reason::Parent => write!(f, "{verdict}: the caller decided so"),
            Reason::Ratio { draw, ratio } => write!(f, "{verdict}: drew {draw:.4}, sampled below {ratio}"),
            Reason::Header => write!(f, "{verdict}: X-Amzn-Trace-Id says so"),
            Reason::Rule { name, source, by } => write!(f, "{verdict}: rule {name} ({source}), {by}"),
        }
    }
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Central => "from X-Ray",
            Self::Local => "local",
            Self::BuiltIn => "built in",
        })
    }
}

impl fmt::Display for RuleDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reservoir { taken, size } => write!(f, "reservoir {taken} of {size} this second"),
            Self::Borrowed => f.write_str("borrowed one request this second"),
            Self::Rate { draw, rate } => write!(f, "drew {draw:.4}, sampled up to {rate}"),
        }
    }
}

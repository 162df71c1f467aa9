//! Sampling: which traces are sent to whom, and why.
//!
//! A decision is never just yes or no. Most of the silence in the course came from a sampler that threw traces away
//! and did not say so; here every decision carries its reason to the page and to `GET /telemetry/traces`.
//!
//! Backends share the sampler of OpenTelemetry ([`opentelemetry`]) unless they bring one of their own, as X-Ray does
//! ([`xray`]): its rules are the account's, and its header is its own.

pub mod opentelemetry;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use opentelemetry::Sampler;

/// Whether a trace is sent, and what decided it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Sent or not. An unsampled trace still shows on the page and still has its id.
    pub sampled: bool,
    /// What decided.
    pub reason: Reason,
}

/// What decided about a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The sampler takes all (`always_on`) or none (`always_off`).
    Always,
    /// The caller decided, and the sampler follows its parent.
    Parent,
    /// A lot drawn from the trace id: sampled when `draw < ratio`.
    Ratio {
        /// The lot, from 0 to 1: the low 64 bits of the trace id.
        draw: f64,
        /// The share of traces to take.
        ratio: f64,
    },
    /// `Sampled=0` or `Sampled=1` in `X-Amzn-Trace-Id`: it always wins.
    Header,
    /// A sampling rule.
    Rule {
        /// Its name: `Cruddur`, `Default`.
        name: Arc<str>,
        /// Where the rule came from.
        source: RuleSource,
        /// How the rule decided.
        by: RuleDecision,
    },
}

/// Where a sampling rule came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuleSource {
    /// From X-Ray, by way of the daemon.
    Central,
    /// From `aws/json/xray.json`.
    Local,
    /// Built in: one a second and 5 %.
    BuiltIn,
}

/// How a sampling rule decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleDecision {
    /// This second's reservoir had room: the `taken`th of `size`.
    Reservoir {
        /// How many of this second were taken from it, this one included.
        taken: u32,
        /// How many it holds a second.
        size: u32,
    },
    /// X-Ray has not said yet how large our share of the reservoir is: one a second is borrowed.
    Borrowed,
    /// The reservoir was empty; a lot decided: sampled when `draw <= rate`.
    Rate {
        /// The lot, from 0 to 1.
        draw: f64,
        /// The share of what the reservoir leaves.
        rate: f64,
    },
}

/// What a sampler may look at: the request before its first span.
#[derive(Clone, Copy, Debug)]
pub struct SamplingInput<'a> {
    /// `Host`, with its port.
    pub host: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// `Sampled=` of `X-Amzn-Trace-Id`.
    pub header: Option<bool>,
    /// Seconds since 1970.
    pub now: u64,
    /// A random number, 0 up to but not including 1.
    pub draw: f64,
}

/// A sampler that one backend brings along.
pub trait BackendSampler: Send + Sync {
    /// Decides about one request, and under which service name its trace is filed.
    fn decide(&self, arrival: &SamplingInput<'_>) -> (Decision, Arc<str>);

    /// Which rules are in force at this second since 1970, in a sentence.
    fn state(&self, now: u64) -> String;

    /// What it has learned from others while it ran, for the one that takes its place. It forgets it.
    fn give_away(&self) -> Option<SamplerState> {
        None
    }

    /// Takes over what the one before it had learned.
    fn take_over(&self, _: SamplerState) {}
}

/// What a sampler has learned; only samplers of the same kind know what it is.
pub type SamplerState = Box<dyn Any + Send>;

/// What the sampler of one backend said about a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendDecision {
    /// The backend.
    pub backend: &'static str,
    /// What was decided.
    pub decision: Decision,
    /// The service name under which the trace is filed there.
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
            Self::Borrowed => f.write_str("borrowed one of this second"),
            Self::Rate { draw, rate } => write!(f, "drew {draw:.4}, sampled up to {rate}"),
        }
    }
}

//! Samplers of OpenTelemetry, by their names in `OTEL_TRACES_SAMPLER`.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers>,
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use std::fmt;

use super::{Decision, Reason};
use crate::trace::context::RemoteParent;
use crate::trace::id::TraceId;

/// Sampler that `OTEL_TRACES_SAMPLER` names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// `parentbased_`: follows the caller's decision if there is one.
    pub parent_based: bool,
    /// Sampler of traces without a caller's decision.
    pub root: RootSampler,
}

/// Sampler of traces that begin here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RootSampler {
    /// Takes every trace.
    AlwaysOn,
    /// Takes no trace.
    AlwaysOff,
    /// Takes this share of all traces, from 0 to 1.
    TraceIdRatio(f64),
}

impl Sampler {
    /// Supported names.
    pub const NAMES: &'static [&'static str] = &[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];

    /// Returns the sampler of that name, or `None` if the name is not supported. `ratio` applies to
    /// the two `traceidratio` samplers.
    pub fn named(name: &str, ratio: f64) -> Option<Self> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => RootSampler::AlwaysOn,
            "always_off" => RootSampler::AlwaysOff,
            "traceidratio" => RootSampler::TraceIdRatio(ratio.clamp(0.0, 1.0)),
            _ => return None,
        };
        Some(Self { parent_based, root })
    }

    /// Decides about one trace, before its first span begins.
    pub fn decide(&self, trace_id: TraceId, parent: Option<&RemoteParent>) -> Decision {
        if self.parent_based
            && let Some(sampled) = parent.and_then(|parent| parent.sampled)
        {
            return Decision { sampled, reason: Reason::Parent };
        }
        match self.root {
            RootSampler::AlwaysOn => Decision { sampled: true, reason: Reason::Always },
            RootSampler::AlwaysOff => Decision { sampled: false, reason: Reason::Always },
            RootSampler::TraceIdRatio(ratio) => {
                let draw = trace_id.low_64_bits() as f64 / TWO_TO_THE_64;
                // The largest ids round to a draw of 1, which must be sampled at a ratio of 1.
                Decision { sampled: draw < ratio || ratio >= 1.0, reason: Reason::Ratio { draw, ratio } }
            }
        }
    }
}

const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.parent_based { "parentbased_" } else { "" })?;
        match self.root {
            RootSampler::AlwaysOn => f.write_str("always_on"),
            RootSampler::AlwaysOff => f.write_str("always_off"),
            RootSampler::TraceIdRatio(ratio) => write!(f, "traceidratio({ratio})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::context::{Propagator, TraceHeaders, extract};

    fn trace_id(low: u64) -> TraceId {
        TraceId::from_hex(&format!("0000000000000001{low:016x}")).unwrap()
    }

    fn parent(flags: &str) -> RemoteParent {
        let value = format!("00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-{flags}");
        extract(&[Propagator::TraceContext], &TraceHeaders { traceparent: vec![&value], ..Default::default() }).unwrap()
    }

    #[test]
    fn every_name_of_the_specification_that_we_take_is_known() {
        for name in Sampler::NAMES {
            assert!(Sampler::named(name, 0.5).unwrap().to_string().starts_with(name), "{name}");
        }
        assert_eq!(Sampler::named("jaeger_remote", 1.0), None);
    }

    #[test]
    fn a_parent_based_sampler_follows_the_caller_and_says_so() {
        let sampler = Sampler::named("parentbased_always_on", 1.0).unwrap();
        let decision = sampler.decide(trace_id(1), Some(&parent("00")));
        assert_eq!(decision, Decision { sampled: false, reason: Reason::Parent });
        assert_eq!(decision.to_string(), "not sampled: the caller decided so");
        assert!(sampler.decide(trace_id(1), None).sampled);
        let stubborn = Sampler::named("always_on", 1.0).unwrap();
        assert!(stubborn.decide(trace_id(1), Some(&parent("00"))).sampled);
    }

    #[test]
    fn a_ratio_compares_the_low_64_bits_of_the_trace_id() {
        let sampler = Sampler::named("traceidratio", 0.25).unwrap();
        assert!(sampler.decide(trace_id(u64::MAX / 4 - 1000), None).sampled);
        let missed = sampler.decide(trace_id(u64::MAX / 2), None);
        assert_eq!(missed.to_string(), "not sampled: drew 0.5000, sampled below 0.25");
        assert!(!Sampler::named("traceidratio", 0.0).unwrap().decide(trace_id(1), None).sampled);
        assert!(Sampler::named("traceidratio", 1.0).unwrap().decide(trace_id(u64::MAX), None).sampled);
    }
}

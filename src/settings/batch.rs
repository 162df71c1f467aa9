//! How the queue of a backend is filled and emptied, under the names of OpenTelemetry's batch processor.

use std::time::Duration;

use super::{Findings, Origin, Setting};

/// How much waits, and how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    /// The longest time that anything waits for its batch to fill.
    pub delay: Duration,
    /// How much the queue holds; what comes on top is dropped and counted.
    pub queue: usize,
    /// How much makes a batch.
    pub batch: usize,
}

impl BatchLimits {
    /// The limits of the three keys of a backend's table.
    #[must_use]
    pub fn new(delay: &Setting<u64>, queue: &Setting<u64>, batch: &Setting<u64>, findings: &mut Findings) -> Self {
        warn_of_seconds("schedule_delay", delay, findings);
        Self {
            delay: Duration::from_millis(delay.value),
            queue: queue.value as usize,
            batch: batch.value.min(queue.value) as usize,
        }
    }
}

/// Warns if milliseconds are set to so small a number that seconds were probably meant.
pub fn warn_of_seconds(name: &str, setting: &Setting<u64>, findings: &mut Findings) {
    let Setting { value, origin } = setting;
    if (1..50).contains(value) && *origin != Origin::Default {
        findings.warn(format!(
            "{origin}: {name} = {value} is in milliseconds; write {} if seconds were meant",
            value * 1000
        ));
    }
}

//! Limits of the queue of a backend, with the names of OpenTelemetry's batch processor.

use std::time::Duration;

use super::{Findings, Origin, Setting};

/// Limits of a queue and its batches, in spans or log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    /// Longest time that an item waits until its batch is sent.
    pub delay: Duration,
    /// Capacity of the queue. Items beyond it are dropped and counted.
    pub queue: usize,
    /// Size of a full batch.
    pub batch: usize,
}

impl BatchLimits {
    /// Creates the limits from the three keys of a backend's table.
    pub fn new(delay: &Setting<u64>, queue: &Setting<u64>, batch: &Setting<u64>, findings: &mut Findings) -> Self {
        warn_of_seconds("schedule_delay", delay, findings);
        Self {
            delay: Duration::from_millis(delay.value),
            queue: queue.value as usize,
            batch: batch.value.min(queue.value) as usize,
        }
    }
}

/// Warns if a value in milliseconds is so small that the user probably meant seconds.
pub fn warn_of_seconds(name: &str, setting: &Setting<u64>, findings: &mut Findings) {
    let Setting { value, origin } = setting;
    if (1..50).contains(value) && *origin != Origin::Default {
        findings
            .warn(format!("{origin}: {name} = {value} is in milliseconds; write {} if you mean seconds", value * 1000));
    }
}

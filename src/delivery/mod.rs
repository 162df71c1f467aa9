//! Stage 3: finished traces and log lines are queued and sent to the backends.
//!
//! In: a finished trace. Out: batches, sent to each backend by its own worker thread.
//!
//! ```text
//! request thread ──▶ queue ──▶ worker: encode ─▶ deliver ─▶ stats      console
//!        └─────────▶ queue ──▶ worker: encode ─▶ deliver ─▶ stats      honeycomb
//! ```
//!
//! The request thread only pushes into each queue. A full queue drops the new item and counts it.
//! A request never waits for a delivery and never fails because of one.
//!
//! After a settings change the queues and counts stay, and new workers replace the old ones. The
//! old worker finishes its current batch on its own thread. The new worker continues with the
//! queued items. A backend that is switched off first sends its queued items.

mod backend;
mod deliveries;
mod encode;
mod processor;
mod queue;
mod saver;
mod spool;
mod stats;
mod stop;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use self::deliveries::SharedSize;
use self::processor::{LineSink, QueueHandle, push};
use self::stop::StopReason;
use crate::logging::LogSink;
use crate::settings::Finding;
use crate::trace::FinishedTrace;
use crate::trace::sampler::BackendSampler;

pub use backend::{BackgroundTask, Encoder, Encoding, Loss, Outcome, Payload, Plan, Problem, State, Transport};
pub use deliveries::{Deliveries, Delivery, DeliveryStatus};
pub use encode::payloads;
pub use processor::BatchProcessor;
pub use queue::{Item, PushResult, Queue};
pub use spool::{Spool, SpoolCounts, SpoolView, inspect};
pub use stats::{DeliveryStats, LastError, Totals};
pub use stop::Stop;

/// Time that the savers have beyond a deadline, for the last write.
const STORE_TIMEOUT: Duration = Duration::from_millis(300);

/// All backends, including those that are off.
pub struct Pipeline {
    processors: Vec<BatchProcessor>,
    /// Sender for the workers. Each worker holds a clone, so the channel is disconnected when all
    /// workers have ended.
    done: Option<Sender<()>>,
    all_done: Receiver<()>,
}

impl Pipeline {
    /// Starts a worker for every backend that is on.
    ///
    /// # Errors
    ///
    /// The system cannot start another thread.
    pub fn start(plans: Vec<Plan>) -> io::Result<Self> {
        let (done, all_done) = channel::<()>();
        let kept = SharedSize::default();
        let mut processors: Vec<_> = plans.iter().map(|plan| BatchProcessor::new(plan, &kept)).collect();
        for (processor, plan) in processors.iter_mut().zip(plans) {
            processor.switch(plan, &done)?;
        }
        Ok(Self { processors, done: Some(done), all_done })
    }

    /// Applies new plans of the same backends in the same order. Backends are switched on and off,
    /// and those with changed settings get a new worker. The call does not block, and queued items
    /// are kept. Returns one sentence per backend that changed.
    ///
    /// # Errors
    ///
    /// The system cannot start another thread. That backend then waits. All other
    /// changes are applied.
    pub fn switch(&mut self, plans: Vec<Plan>) -> (Vec<String>, io::Result<()>) {
        let (mut changes, mut result) = (Vec::new(), Ok(()));
        let Some(done) = &self.done else { return (changes, result) };
        for (processor, plan) in self.processors.iter_mut().zip(plans) {
            match processor.switch(plan, done) {
                Ok(change) => changes.extend(change),
                Err(error) => result = Err(error),
            }
        }
        (changes, result)
    }

    /// Queues a trace of `size` bytes in memory for every backend that is on and samples it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>, size: usize) {
        let spans = trace.spans.len();
        for processor in &self.processors {
            match &processor.queue {
                QueueHandle::Lines(..) => {}
                QueueHandle::Traces(_) if !processor.is_on() => processor.stats.not_sent(spans),
                QueueHandle::Traces(_) if !trace.decision_for(processor.plan.name).sampled => {
                    processor.stats.sampled_out(spans)
                }
                QueueHandle::Traces(queue) => push(queue, &processor.stats, trace, size),
            }
        }
    }

    /// Returns the sinks of the backends that receive log lines.
    pub fn log_sinks(&self) -> Vec<Box<dyn LogSink>> {
        let sinks = self.processors.iter().filter_map(|processor| match &processor.queue {
            QueueHandle::Lines(level, queue) => Some(Box::new(LineSink {
                level: Arc::clone(level),
                queue: Arc::clone(queue),
                stats: Arc::clone(&processor.stats),
            }) as Box<dyn LogSink>),
            QueueHandle::Traces(_) => None,
        });
        sinks.collect()
    }

    /// Returns the samplers of the backends that have their own.
    pub fn samplers(&self) -> Vec<(&'static str, Arc<dyn BackendSampler>)> {
        self.processors
            .iter()
            .filter_map(|processor| Some((processor.plan.name, Arc::clone(processor.plan.sampler.as_ref()?))))
            .collect()
    }

    /// Returns the findings about the settings of all backends.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.processors.iter().flat_map(|processor| &processor.plan.findings)
    }

    /// Returns all backends.
    pub fn processors(&self) -> &[BatchProcessor] {
        &self.processors
    }

    /// Sends the queued items until `deadline`. Items not sent by then are counted as dropped, and
    /// a warning is logged.
    pub fn finish(&mut self, deadline: Instant) {
        for processor in &self.processors {
            processor.stops.iter().for_each(|stop| stop.at(deadline, StopReason::Program));
            processor.queue.close();
        }
        self.done = None;
        // No message is ever sent on this channel. It is disconnected when the last worker ends.
        let is_stored = self.processors.iter().any(|processor| processor.spool.is_some());
        let deadline = if is_stored { deadline + STORE_TIMEOUT } else { deadline };
        let _ = self.all_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        for processor in &self.processors {
            processor.stats.close(processor.queued());
            processor.spool.iter().for_each(|spool| spool.close());
        }
    }
}

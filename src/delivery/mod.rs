//! Stage 3: finished things wait for their backends.
//!
//! In: a finished trace. Out: batches, each given to one backend by that backend's own thread.
//!
//! ```text
//! request thread ──▶ queue ──▶ worker: encode ─▶ deliver ─▶ stats      console
//!        └─────────▶ queue ──▶ worker: encode ─▶ deliver ─▶ stats      honeycomb
//! ```
//!
//! The request thread pays for a push into each queue. A queue that is full drops the newest and counts it; nothing in
//! here makes a request wait or fail.
//!
//! When the settings change, queues and ledgers stay and workers change: the old one finishes what it has in hand on its
//! own thread, the new one takes over what waits. A backend that is switched off sends what waits first.

mod backend;
mod deliveries;
mod encode;
mod processor;
mod queue;
mod stats;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use self::processor::{LineSink, QueueHandle, push};
use self::worker::StopReason;
use crate::logging::LogSink;
use crate::trace::FinishedTrace;
use crate::trace::sampler::BackendSampler;

pub use backend::{
    BackgroundTask, Encoder, Encoding, Loss, Outcome, Payload, Plan, PlannedState, Problem, State, Transport,
};
pub use deliveries::{Deliveries, Delivery, End};
pub use encode::payloads;
pub use processor::BatchProcessor;
pub use queue::{Item, Pushed, Queue};
pub use stats::{DeliveryStats, LastError, Totals};
pub use worker::Stop;

/// All backends, those that are off too.
pub struct Pipeline {
    processors: Vec<BatchProcessor>,
    /// Held by every worker too: when all have let go of it, all have ended.
    done: Option<Sender<()>>,
    all_done: Receiver<()>,
}

impl Pipeline {
    /// Starts a worker for every backend that is on.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(plans: Vec<Plan>) -> io::Result<Self> {
        let (done, all_done) = channel::<()>();
        let mut processors: Vec<BatchProcessor> = plans.iter().map(BatchProcessor::new).collect();
        for (processor, plan) in processors.iter_mut().zip(plans) {
            processor.switch(plan, &done)?;
        }
        Ok(Self { processors, done: Some(done), all_done })
    }

    /// Goes over to new plans, of the same backends in the same order: backends are switched on and off, and those whose
    /// settings have changed get another worker. Nobody waits, and nothing that waits is lost. Answers what changed, a
    /// sentence a backend.
    ///
    /// # Errors
    ///
    /// The system has no thread left for one of them, which is off then, while all others have changed.
    pub fn switch(&mut self, plans: Vec<Plan>) -> (Vec<String>, io::Result<()>) {
        let (mut changes, mut result) = (Vec::new(), Ok(()));
        let Some(done) = &self.done else { return (changes, result) };
        for (processor, plan) in self.processors.iter_mut().zip(plans) {
            let changed = processor.switch(plan, done);
            match changed {
                Ok(change) => changes.extend(change),
                Err(error) => result = Err(error),
            }
        }
        (changes, result)
    }

    /// Hands a trace to every backend that is on and wants it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>) {
        let size = trace.size();
        let spans = trace.spans.len();
        for processor in &self.processors {
            match &processor.queue {
                QueueHandle::Lines(..) => {}
                QueueHandle::Traces(_) if !processor.is_on() => processor.stats.not_sent(spans),
                QueueHandle::Traces(_) if !trace.decision_for(processor.name).sampled => {
                    processor.stats.sampled_out(spans)
                }
                QueueHandle::Traces(queue) => push(queue, &processor.stats, trace, size),
            }
        }
    }

    /// The sinks of the backends that take log lines.
    #[must_use]
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

    /// The samplers that backends bring along.
    #[must_use]
    pub fn samplers(&self) -> Vec<(&'static str, Arc<dyn BackendSampler>)> {
        self.processors
            .iter()
            .filter_map(|processor| Some((processor.name, Arc::clone(processor.sampler.as_ref()?))))
            .collect()
    }

    /// All backends.
    #[must_use]
    pub fn processors(&self) -> &[BatchProcessor] {
        &self.processors
    }

    /// Sends what waits, until `deadline`. What has not left by then is counted as dropped, and said.
    pub fn finish(&mut self, deadline: Instant) {
        for processor in &self.processors {
            processor.stops.iter().for_each(|stop| stop.at(deadline, StopReason::Program));
            processor.queue.close();
        }
        self.done = None;
        // Nothing is ever sent on this channel: it ends when the last worker does.
        while let Ok(()) | Err(RecvTimeoutError::Timeout) =
            self.all_done.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if Instant::now() >= deadline {
                break;
            }
        }
        for processor in &self.processors {
            processor.stats.close(processor.queued());
        }
    }
}

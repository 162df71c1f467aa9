//! Stage 3: finished things wait for their backends.
//!
//! In: a finished trace. Out: batches, each given to one backend by that backend's own thread.
//!
//! ```text
//! request thread ──▶ queue ──▶ worker: encode ─▶ deliver ─▶ ledger      console
//!        └─────────▶ queue ──▶ worker: encode ─▶ deliver ─▶ ledger      honeycomb
//! ```
//!
//! The request thread pays for a push into each queue. A queue that is full drops the newest and counts it; nothing in
//! here makes a request wait or fail.
//!
//! When the settings change, queues and ledgers stay and workers change: the old one finishes what it has in hand on its
//! own thread, the new one takes over what waits. A backend that is switched off sends what waits first.

mod deliveries;
mod lane;
mod ledger;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use self::lane::{Intake, push};
use self::worker::Why;
use crate::backends::Plan;
use crate::trace::FinishedTrace;
use crate::trace::sampler::BackendSampler;

pub use deliveries::{Deliveries, Delivery, End};
pub use lane::{Lane, LineTaker};
pub use ledger::{LastError, Ledger, Problem, Totals};
pub use queue::{BatchLimits, Pushed, Queue, Weigh};
pub use worker::Stop;

/// All backends, those that are off too.
pub struct Pipeline {
    lanes: Vec<Lane>,
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
        let mut lanes: Vec<Lane> = plans.iter().map(Lane::closed).collect();
        for (lane, plan) in lanes.iter_mut().zip(plans) {
            lane.switch(plan, &done)?;
        }
        Ok(Self { lanes, done: Some(done), all_done })
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
        for (lane, plan) in self.lanes.iter_mut().zip(plans) {
            let changed = lane.switch(plan, done);
            match changed {
                Ok(change) => changes.extend(change),
                Err(error) => result = Err(error),
            }
        }
        (changes, result)
    }

    /// Hands a trace of this size to every backend that is on and wants it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>, size: usize) {
        let spans = trace.spans.len();
        for lane in &self.lanes {
            match &lane.intake {
                Intake::Lines(..) => {}
                Intake::Traces(_) if !lane.is_on() => lane.ledger.not_sent(spans),
                Intake::Traces(_) if !trace.decision_for(lane.name).sampled => lane.ledger.sampled_out(spans),
                Intake::Traces(queue) => push(queue, &lane.ledger, trace, size),
            }
        }
    }

    /// Where log lines go. They know by themselves which lines they take at any time.
    #[must_use]
    pub fn line_takers(&self) -> Vec<LineTaker> {
        let lines = self.lanes.iter().filter_map(|lane| match &lane.intake {
            Intake::Lines(level, queue) => {
                Some(LineTaker { level: Arc::clone(level), queue: Arc::clone(queue), ledger: Arc::clone(&lane.ledger) })
            }
            Intake::Traces(_) => None,
        });
        lines.collect()
    }

    /// The samplers that backends bring along.
    #[must_use]
    pub fn samplers(&self) -> Vec<(&'static str, Arc<dyn BackendSampler>)> {
        self.lanes.iter().filter_map(|lane| Some((lane.name, Arc::clone(lane.sampler.as_ref()?)))).collect()
    }

    /// All backends.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Sends what waits, until `deadline`. What has not left by then is counted as dropped, and said.
    pub fn finish(&mut self, deadline: Instant) {
        for lane in &self.lanes {
            lane.stops.iter().for_each(|stop| stop.at(deadline, Why::Program));
            lane.intake.close();
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
        for lane in &self.lanes {
            lane.ledger.close(lane.queued());
        }
    }
}

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

mod ledger;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use self::worker::Worker;
use crate::backends::{Plan, Switch};
use crate::trace::FinishedTrace;
use crate::trace::id::IdSource;
use crate::trace::sampler::BackendSampler;

pub use ledger::{LastError, Ledger, Problem, Totals};
pub use queue::{BatchLimits, Queue};
pub use worker::Stop;

/// All backends, those that are off too.
pub struct Pipeline {
    lanes: Vec<Lane>,
    stop: Arc<Stop>,
    all_done: Receiver<()>,
}

/// One backend: what it is, and what became of what it was given.
pub struct Lane {
    /// Its name: its table in `telemetry.toml`.
    pub name: &'static str,
    /// `on`, `off` or `waiting`.
    pub state: &'static str,
    /// Why it is so.
    pub reason: String,
    /// Where it sends to, without secrets.
    pub destination: String,
    /// Its books.
    pub ledger: Arc<Ledger>,
    /// Its own sampler, if it has one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    queue: Option<Arc<Queue<Arc<FinishedTrace>>>>,
}

impl Pipeline {
    /// Starts a worker for every backend that is on.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(plans: Vec<Plan>) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (done, all_done) = channel::<()>();
        let mut lanes = Vec::new();
        for plan in plans {
            let ledger = Arc::new(Ledger::new(plan.name, "spans"));
            let state = plan.switch.state();
            let queue = match plan.switch {
                Switch::Off | Switch::Waiting => None,
                Switch::On(backend) => {
                    let queue = Arc::new(Queue::new(plan.limits));
                    let worker = Worker {
                        backend,
                        queue: Arc::clone(&queue),
                        ledger: Arc::clone(&ledger),
                        stop: Arc::clone(&stop),
                        random: IdSource::new(),
                    };
                    let done = done.clone();
                    thread::Builder::new().name(plan.name.to_owned()).spawn(move || {
                        let _done = done;
                        worker.run();
                    })?;
                    Some(queue)
                }
            };
            if let Some(companion) = plan.companion {
                let stop = Arc::clone(&stop);
                thread::Builder::new().name(format!("{}-companion", plan.name)).spawn(move || companion.run(&stop))?;
            }
            let (name, reason, destination) = (plan.name, plan.reason, plan.destination);
            lanes.push(Lane { name, state, reason, destination, ledger, sampler: plan.sampler, queue });
        }
        Ok(Self { lanes, stop, all_done })
    }

    /// Hands a trace to every backend that is on and wants it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>) {
        let spans = trace.spans.len();
        for lane in &self.lanes {
            match &lane.queue {
                None => lane.ledger.not_sent(spans),
                Some(_) if !trace.decision_for(lane.name).sampled => lane.ledger.sampled_out(spans),
                Some(queue) => {
                    if !queue.push(Arc::clone(trace), spans) {
                        lane.ledger.queue_was_full(spans, queue.limits().queue);
                    }
                }
            }
        }
    }

    /// All backends.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Sends what waits, until `deadline`. What has not left by then is counted as dropped, and said.
    pub fn finish(&self, deadline: Instant) {
        self.stop.at(deadline);
        for queue in self.lanes.iter().filter_map(|lane| lane.queue.as_ref()) {
            queue.close();
        }
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

impl Lane {
    /// How much waits in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.weight())
    }
}

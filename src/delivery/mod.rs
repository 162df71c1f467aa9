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

mod deliveries;
mod ledger;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;

use self::worker::Worker;
use crate::backends::{Backend, Dialect, Plan, Sink, Switch};
use crate::logging::{self, LogLine};
use crate::trace::FinishedTrace;
use crate::trace::id::IdSource;
use crate::trace::sampler::BackendSampler;

pub use deliveries::{Deliveries, Delivery, End};
pub use ledger::{LastError, Ledger, Problem, Totals};
pub use queue::{BatchLimits, Pushed, Queue, Weigh};
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
    /// What it makes of one request.
    pub dialect: Option<Dialect>,
    /// How its queue is filled and emptied.
    pub limits: BatchLimits,
    intake: Intake,
}

/// A backend's way in.
enum Intake {
    /// It is off, or waits for something.
    Closed,
    Traces(Arc<Queue<Arc<FinishedTrace>>>),
    Lines(LevelFilter, Arc<Queue<Arc<LogLine>>>),
}

/// A backend's way in for log lines, to be used by the logger.
pub struct LineTaker {
    /// Which lines it takes.
    pub level: LevelFilter,
    queue: Arc<Queue<Arc<LogLine>>>,
    ledger: Arc<Ledger>,
}

/// What every worker is started with.
struct Start<'a> {
    name: &'static str,
    limits: BatchLimits,
    ledger: &'a Arc<Ledger>,
    stop: &'a Arc<Stop>,
    done: &'a Sender<()>,
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
            let unit = if plan.takes_lines { "lines" } else { "spans" };
            let ledger = Arc::new(Ledger::new(plan.name, unit));
            let state = plan.switch.state();
            let start = Start { name: plan.name, limits: plan.limits, ledger: &ledger, stop: &stop, done: &done };
            let intake = match plan.switch {
                Switch::Off | Switch::Waiting => Intake::Closed,
                Switch::On(Sink::Traces(backend)) => Intake::Traces(start.worker(backend)?),
                Switch::On(Sink::Lines(level, backend)) => Intake::Lines(level, start.worker(backend)?),
            };
            if let Some(companion) = plan.companion {
                let stop = Arc::clone(&stop);
                thread::Builder::new().name(format!("{}-companion", plan.name)).spawn(move || {
                    logging::keep_to_stderr();
                    companion.run(&stop);
                })?;
            }
            lanes.push(Lane {
                name: plan.name,
                state,
                reason: plan.reason,
                destination: plan.destination,
                ledger,
                sampler: plan.sampler,
                dialect: plan.dialect,
                limits: plan.limits,
                intake,
            });
        }
        Ok(Self { lanes, stop, all_done })
    }

    /// Hands a trace to every backend that is on and wants it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>) {
        let spans = trace.spans.len();
        for lane in &self.lanes {
            match &lane.intake {
                Intake::Lines(..) => {}
                Intake::Closed if lane.ledger.unit() == "lines" => {}
                Intake::Closed => lane.ledger.not_sent(spans),
                Intake::Traces(_) if !trace.decision_for(lane.name).sampled => lane.ledger.sampled_out(spans),
                Intake::Traces(queue) => push(queue, &lane.ledger, trace),
            }
        }
    }

    /// Where log lines go, and from which level on.
    #[must_use]
    pub fn line_takers(&self) -> Vec<LineTaker> {
        let lines = self.lanes.iter().filter_map(|lane| match &lane.intake {
            Intake::Lines(level, queue) => {
                Some(LineTaker { level: *level, queue: Arc::clone(queue), ledger: Arc::clone(&lane.ledger) })
            }
            Intake::Closed | Intake::Traces(_) => None,
        });
        lines.collect()
    }

    /// All backends.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Sends what waits, until `deadline`. What has not left by then is counted as dropped, and said.
    pub fn finish(&self, deadline: Instant) {
        self.stop.at(deadline);
        for lane in &self.lanes {
            match &lane.intake {
                Intake::Closed => {}
                Intake::Traces(queue) => queue.close(),
                Intake::Lines(_, queue) => queue.close(),
            }
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
        match &self.intake {
            Intake::Closed => 0,
            Intake::Traces(queue) => queue.weight(),
            Intake::Lines(_, queue) => queue.weight(),
        }
    }

    /// How long it is until what waits in the queue leaves at the latest; `None` if nothing waits.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        match &self.intake {
            Intake::Closed => None,
            Intake::Traces(queue) => queue.due_in(),
            Intake::Lines(_, queue) => queue.due_in(),
        }
    }
}

impl LineTaker {
    /// Takes a line, if it is wanted.
    pub fn take(&self, line: &Arc<LogLine>) {
        if line.level <= self.level {
            push(&self.queue, &self.ledger, line);
        }
    }
}

impl Start<'_> {
    fn worker<T: Weigh + Send + Sync + 'static>(&self, backend: Box<dyn Backend<T>>) -> io::Result<Arc<Queue<Arc<T>>>> {
        let queue = Arc::new(Queue::new(self.limits));
        let worker = Worker {
            backend,
            queue: Arc::clone(&queue),
            ledger: Arc::clone(self.ledger),
            stop: Arc::clone(self.stop),
            random: IdSource::new(),
        };
        let done = self.done.clone();
        thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            let _done = done;
            worker.run();
        })?;
        Ok(queue)
    }
}

fn push<T: Weigh>(queue: &Queue<Arc<T>>, ledger: &Ledger, item: &Arc<T>) {
    match queue.push(Arc::clone(item), item.weight()) {
        Pushed::Taken => {}
        Pushed::Full => ledger.queue_was_full(item.weight(), queue.limits().queue),
        // What comes after the last flush has begun: the line that says how it went.
        Pushed::Closed => {}
    }
}

impl Weigh for FinishedTrace {
    fn weight(&self) -> usize {
        self.spans.len()
    }
}

impl Weigh for LogLine {
    fn weight(&self) -> usize {
        1
    }
}

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
mod ledger;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;

use self::worker::{Why, Worker};
use crate::backends::{Backend, Companion, Dialect, Plan, Sink, Switch};
use crate::logging::{self, LogLine};
use crate::settings::{Finding, Reading};
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
    /// Held by every worker too: when all have let go of it, all have ended.
    done: Option<Sender<()>>,
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
    /// What is remarkable about its settings.
    pub findings: Vec<Finding>,
    /// Its books.
    pub ledger: Arc<Ledger>,
    /// Its own sampler, if it has one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    /// What it makes of one request.
    pub dialect: Option<Dialect>,
    /// How its queue is filled and emptied.
    pub limits: BatchLimits,
    intake: Intake,
    /// The values that its worker was made from.
    readings: Vec<Reading>,
    /// Its worker's, if it is on, and those of workers before that have not ended yet.
    stops: Vec<Arc<Stop>>,
}

/// A backend's way in. It is there whether the backend is on or not.
enum Intake {
    Traces(Arc<Queue<Arc<FinishedTrace>>>),
    Lines(Arc<Level>, Arc<Queue<Arc<LogLine>>>),
}

/// The least important lines that a backend takes, as a number; 0 is none. It changes while others read it.
#[derive(Default)]
struct Level(AtomicUsize);

/// A backend's way in for log lines, to be used by the logger.
pub struct LineTaker {
    level: Arc<Level>,
    queue: Arc<Queue<Arc<LogLine>>>,
    ledger: Arc<Ledger>,
}

/// How long a backend that was switched off, or whose settings have changed, may take to end its work.
const LAST_WORK: Duration = Duration::from_secs(5);

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

    /// Hands a trace to every backend that is on and wants it.
    pub fn submit(&self, trace: &Arc<FinishedTrace>) {
        let spans = trace.spans.len();
        for lane in &self.lanes {
            match &lane.intake {
                Intake::Lines(..) => {}
                Intake::Traces(_) if !lane.is_on() => lane.ledger.not_sent(spans),
                Intake::Traces(_) if !trace.decision_for(lane.name).sampled => lane.ledger.sampled_out(spans),
                Intake::Traces(queue) => push(queue, &lane.ledger, trace),
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

impl Lane {
    fn closed(plan: &Plan) -> Self {
        let (unit, intake) = if plan.takes_lines {
            ("lines", Intake::Lines(Arc::default(), Arc::new(Queue::new(plan.limits))))
        } else {
            ("spans", Intake::Traces(Arc::new(Queue::new(plan.limits))))
        };
        Self {
            name: plan.name,
            state: "off",
            reason: String::new(),
            destination: String::new(),
            findings: Vec::new(),
            ledger: Arc::new(Ledger::new(plan.name, unit)),
            sampler: None,
            dialect: None,
            limits: plan.limits,
            intake,
            readings: Vec::new(),
            stops: Vec::new(),
        }
    }

    /// Becomes what `plan` says. Answers what changed, if anything did but the words.
    fn switch(&mut self, plan: Plan, done: &Sender<()>) -> io::Result<Option<String>> {
        let Plan { switch, reason, destination, findings, readings, limits, sampler, companion, dialect, .. } = plan;
        let (before, was_on) = (self.state, self.is_on());
        let changed = Reading::changed(&self.readings, &readings);
        self.state = switch.state();
        (self.reason, self.destination, self.findings) = (reason, destination, findings);
        (self.dialect, self.limits) = (dialect, limits);
        let Switch::On(sink) = switch else {
            self.readings = readings;
            if was_on {
                self.sampler = None;
                self.retire(Why::Off { lost_before: self.ledger.lost() });
                self.intake.close();
            }
            return Ok((before != self.state).then(|| format!("{} {}: {}", self.name, self.state, self.reason)));
        };
        if was_on && changed.is_empty() {
            return Ok(None);
        }
        // Its worker may still be at work, be it only to send the rest.
        self.retire(Why::Replaced);
        (self.readings, self.sampler) = (readings, sampler);
        let stop = Arc::new(Stop::default());
        let started = self.start(sink, limits, &stop, done).and_then(|()| self.accompany(companion, &stop));
        if let Err(error) = started {
            self.retire(Why::Off { lost_before: self.ledger.lost() });
            self.intake.close();
            (self.state, self.sampler) = ("waiting", None);
            self.reason = format!("no thread for it: {error}; next: end other programs, and save the settings again");
            return Err(error);
        }
        self.stops.push(stop);
        let (name, destination) = (self.name, &self.destination);
        Ok(Some(if was_on {
            format!("{name} has new settings ({}): {destination}", changed.join(", "))
        } else {
            format!("{name} on: {destination}")
        }))
    }

    /// How much waits in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        match &self.intake {
            Intake::Traces(queue) => queue.weight(),
            Intake::Lines(_, queue) => queue.weight(),
        }
    }

    /// How long it is until what waits in the queue leaves at the latest; `None` if nothing waits.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        match &self.intake {
            Intake::Traces(queue) => queue.due_in(),
            Intake::Lines(_, queue) => queue.due_in(),
        }
    }

    fn is_on(&self) -> bool {
        self.state == "on"
    }

    /// Its worker ends, in its own time, and others that have not ended yet.
    fn retire(&mut self, why: Why) {
        // Whoever has ended has let go of his.
        self.stops.retain(|stop| Arc::strong_count(stop) > 1);
        self.stops.iter().for_each(|stop| stop.at(Instant::now() + LAST_WORK, why));
    }

    fn start(&self, sink: Sink, limits: BatchLimits, stop: &Arc<Stop>, done: &Sender<()>) -> io::Result<()> {
        match (&self.intake, sink) {
            (Intake::Traces(queue), Sink::Traces(backend)) => self.work(queue, limits, backend, stop, done),
            (Intake::Lines(level, queue), Sink::Lines(least, backend)) => {
                self.work(queue, limits, backend, stop, done)?;
                level.0.store(least as usize, Ordering::Relaxed);
                Ok(())
            }
            _ => unreachable!("a backend takes lines or traces, whatever its settings"),
        }
    }

    fn work<T: Weigh + Send + Sync + 'static>(
        &self,
        queue: &Arc<Queue<Arc<T>>>,
        limits: BatchLimits,
        backend: Box<dyn Backend<T>>,
        stop: &Arc<Stop>,
        done: &Sender<()>,
    ) -> io::Result<()> {
        let worker = Worker {
            backend,
            turn: queue.give_to_next(limits),
            queue: Arc::clone(queue),
            ledger: Arc::clone(&self.ledger),
            stop: Arc::clone(stop),
            random: IdSource::new(),
            number: 0,
            settled: 0,
            goes_back: false,
        };
        let done = done.clone();
        thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            let _done = done;
            worker.run();
        })?;
        Ok(())
    }

    fn accompany(&self, companion: Option<Box<dyn Companion>>, stop: &Arc<Stop>) -> io::Result<()> {
        let Some(companion) = companion else { return Ok(()) };
        let stop = Arc::clone(stop);
        thread::Builder::new().name(format!("{}-companion", self.name)).spawn(move || {
            logging::keep_to_stderr();
            companion.run(&stop);
        })?;
        Ok(())
    }
}

impl Intake {
    fn close(&self) {
        match self {
            Self::Traces(queue) => queue.close(),
            Self::Lines(level, queue) => {
                level.0.store(0, Ordering::Relaxed);
                queue.close();
            }
        }
    }
}

impl LineTaker {
    /// The least important lines that it takes at the moment.
    #[must_use]
    pub fn level(&self) -> LevelFilter {
        let level = self.level.0.load(Ordering::Relaxed);
        LevelFilter::iter().find(|filter| *filter as usize == level).unwrap_or(LevelFilter::Off)
    }

    /// Whether it takes lines of this level at the moment.
    #[must_use]
    pub fn wants(&self, level: log::Level) -> bool {
        level as usize <= self.level.0.load(Ordering::Relaxed)
    }

    /// Takes a line, if it is wanted.
    pub fn take(&self, line: &Arc<LogLine>) {
        if self.wants(line.level) {
            push(&self.queue, &self.ledger, line);
        }
    }
}

fn push<T: Weigh>(queue: &Queue<Arc<T>>, ledger: &Ledger, item: &Arc<T>) {
    match queue.push(Arc::clone(item), item.weight()) {
        Pushed::Taken => {}
        Pushed::Full => ledger.queue_was_full(item.weight(), queue.limits().queue),
        // What comes when the last flush has begun: the line that says how it went.
        Pushed::Closed => ledger.not_sent(item.weight()),
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

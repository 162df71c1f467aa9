//! One backend while the program runs, whether it is on or not: its way in, its books, its worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;

use super::ledger::Ledger;
use super::queue::{BatchLimits, Pushed, Queue, Weigh};
use super::worker::{Stop, Why, Worker};
use crate::backends::{Backend, Companion, Dialect, Plan, Sink, Switch};
use crate::logging::{self, LogLine};
use crate::settings::{Finding, Reading};
use crate::trace::FinishedTrace;
use crate::trace::id::IdSource;
use crate::trace::sampler::BackendSampler;

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
    pub(super) intake: Intake,
    /// The values that its worker was made from.
    readings: Vec<Reading>,
    /// Its worker's, if it is on, and those of workers before that have not ended yet.
    pub(super) stops: Vec<Arc<Stop>>,
}

/// A backend's way in. It is there whether the backend is on or not.
pub(super) enum Intake {
    Traces(Arc<Queue<Arc<FinishedTrace>>>),
    Lines(Arc<Level>, Arc<Queue<Arc<LogLine>>>),
}

/// The least important lines that a backend takes, as a number; 0 is none. It changes while others read it.
#[derive(Default)]
pub(super) struct Level(AtomicUsize);

/// A backend's way in for log lines, to be used by the logger.
pub struct LineTaker {
    pub(super) level: Arc<Level>,
    pub(super) queue: Arc<Queue<Arc<LogLine>>>,
    pub(super) ledger: Arc<Ledger>,
}

/// How long a backend that was switched off, or whose settings have changed, may take to end its work.
const LAST_WORK: Duration = Duration::from_secs(5);

impl Lane {
    pub(super) fn closed(plan: &Plan) -> Self {
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
    pub(super) fn switch(&mut self, plan: Plan, done: &Sender<()>) -> io::Result<Option<String>> {
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
        if let (Some(before), Some(sampler)) = (&self.sampler, &sampler)
            && let Some(learned) = before.give_away()
        {
            sampler.take_over(learned);
        }
        (self.readings, self.sampler) = (readings, sampler);
        let stop = Arc::new(Stop::default());
        self.stops.push(Arc::clone(&stop));
        let started = self.start(sink, limits, &stop, done).and_then(|()| self.accompany(companion, &stop));
        if let Err(error) = started {
            self.retire(Why::Off { lost_before: self.ledger.lost() });
            self.intake.close();
            (self.state, self.sampler) = ("waiting", None);
            self.reason = format!("no thread for it: {error}; next: end other programs, and save the settings again");
            return Err(error);
        }
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

    pub(super) fn is_on(&self) -> bool {
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
    pub(super) fn close(&self) {
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
            push(&self.queue, &self.ledger, line, line.size());
        }
    }
}

pub(super) fn push<T: Weigh>(queue: &Queue<Arc<T>>, ledger: &Ledger, item: &Arc<T>, size: usize) {
    match queue.push(Arc::clone(item), item.weight(), size) {
        Pushed::Taken => {}
        Pushed::Full => ledger.queue_was_full(item.weight(), Some(queue.limits().queue)),
        Pushed::FullOfBytes => ledger.queue_was_full(item.weight(), None),
        // What comes when the last flush has begun: the line that says how it went.
        Pushed::Closed => ledger.not_sent(item.weight()),
    }
}

impl Weigh for FinishedTrace {
    fn weight(&self) -> usize {
        self.spans.len()
    }

    fn size(&self) -> usize {
        Self::size(self)
    }
}

impl Weigh for LogLine {
    fn weight(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        Self::size(self)
    }
}

//! One backend while the program runs, whether it is on or not: its queue, its counts, its worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;

use super::backend::{BackgroundTask, Encoder, Encoding, Plan, PlannedState, State, Transport};
use super::queue::{Item, Pushed, Queue};
use super::stats::DeliveryStats;
use super::worker::{Stop, StopReason, Worker};
use crate::logging::{self, LogLine, LogSink};
use crate::settings::{BatchLimits, Finding, Values};
use crate::text::Message;
use crate::trace::FinishedTrace;
use crate::trace::sampler::BackendSampler;

/// One backend at run time: its configuration, its queue, its counts and its worker.
pub struct BatchProcessor {
    /// Its name: its table in telemetry.toml.
    pub name: &'static str,
    /// Whether it runs.
    pub state: State,
    /// Why it does, or does not.
    pub reason: String,
    /// Where it sends to, without secrets.
    pub destination: String,
    /// What is remarkable about its settings.
    pub findings: Vec<Finding>,
    /// What became of everything it was given.
    pub stats: Arc<DeliveryStats>,
    /// Its own sampler, if it has one.
    pub sampler: Option<Arc<dyn BackendSampler>>,
    /// Makes its bytes.
    pub encoding: Encoding,
    /// False if it only writes to this process's own output.
    pub is_remote: bool,
    /// How its queue is filled and emptied.
    pub limits: BatchLimits,
    pub(super) queue: QueueHandle,
    /// The values that its worker was made from.
    values: Values,
    /// Stop handles of the current worker and of earlier workers that are still finishing.
    pub(super) stops: Vec<Arc<Stop>>,
}

/// The queue of a backend. It is there whether the backend runs or not.
pub(super) enum QueueHandle {
    Traces(Arc<Queue<Arc<FinishedTrace>>>),
    Lines(Arc<Level>, Arc<Queue<Arc<LogLine>>>),
}

/// The least important level of lines that a backend takes, as a number; 0 is none. It changes while other threads read it.
#[derive(Default)]
pub(super) struct Level(AtomicUsize);

/// Puts log lines into the queue of a backend.
pub(super) struct LineSink {
    pub(super) level: Arc<Level>,
    pub(super) queue: Arc<Queue<Arc<LogLine>>>,
    pub(super) stats: Arc<DeliveryStats>,
}

/// How long a backend that was switched off, or whose settings have changed, may take to end its work.
const LAST_WORK: Duration = Duration::from_secs(5);

impl BatchProcessor {
    /// A backend that does not run yet.
    pub(super) fn new(plan: &Plan) -> Self {
        let queue = match plan.encoding {
            Encoding::Traces(_) => QueueHandle::Traces(Arc::new(Queue::new(plan.limits))),
            Encoding::Lines(_) => QueueHandle::Lines(Arc::default(), Arc::new(Queue::new(plan.limits))),
        };
        Self {
            name: plan.name,
            state: State::Off,
            reason: String::new(),
            destination: String::new(),
            findings: Vec::new(),
            stats: Arc::new(DeliveryStats::new(plan.name, plan.encoding.unit())),
            sampler: None,
            encoding: plan.encoding.clone(),
            is_remote: plan.is_remote,
            limits: plan.limits,
            queue,
            values: Values::default(),
            stops: Vec::new(),
        }
    }

    /// Applies `plan`. Returns what changed, or `None` if nothing but descriptions did.
    pub(super) fn switch(&mut self, plan: Plan, done: &Sender<()>) -> io::Result<Option<String>> {
        let (before, was_on) = (self.state, self.is_on());
        let changed = plan.values.changed_since(&self.values);
        self.state = plan.state.state();
        (self.reason, self.destination, self.findings) = (plan.reason, plan.destination, plan.findings);
        (self.encoding, self.limits, self.values) = (plan.encoding, plan.limits, plan.values);
        let PlannedState::On(transport) = plan.state else {
            if was_on {
                self.stop();
            }
            return Ok(
                (before != self.state).then(|| format!("{} {}: {}", self.name, self.state.as_str(), self.reason))
            );
        };
        if was_on && changed.is_empty() {
            return Ok(None);
        }
        // An earlier worker may still be at work, if only to send the rest.
        self.retire(StopReason::Replaced);
        if let (Some(before), Some(sampler)) = (&self.sampler, &plan.sampler)
            && let Some(state) = before.take_state()
        {
            sampler.restore_state(state);
        }
        self.sampler = plan.sampler;
        if let Err(error) = self.start(transport, plan.level, plan.task, done) {
            self.stop();
            self.state = State::Waiting;
            let what = Message::new(format!("no thread for it: {error}"));
            self.reason = what.next("end other programs, and save the settings again").to_string();
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
        match &self.queue {
            QueueHandle::Traces(queue) => queue.count(),
            QueueHandle::Lines(_, queue) => queue.count(),
        }
    }

    /// How long it is until what waits in the queue leaves at the latest; `None` if nothing waits.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        match &self.queue {
            QueueHandle::Traces(queue) => queue.due_in(),
            QueueHandle::Lines(_, queue) => queue.due_in(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.state == State::On
    }

    /// Asks the worker, and earlier ones that have not ended yet, to end within [`LAST_WORK`].
    fn retire(&mut self, reason: StopReason) {
        // A worker that has ended has dropped its `Arc`.
        self.stops.retain(|stop| Arc::strong_count(stop) > 1);
        self.stops.iter().for_each(|stop| stop.at(Instant::now() + LAST_WORK, reason));
    }

    /// Sends what waits, and takes nothing more.
    fn stop(&mut self) {
        self.sampler = None;
        self.retire(StopReason::Off { lost_before: self.stats.lost() });
        self.queue.close();
    }

    fn start(
        &mut self,
        transport: Box<dyn Transport>,
        level: LevelFilter,
        task: Option<Box<dyn BackgroundTask>>,
        done: &Sender<()>,
    ) -> io::Result<()> {
        let stop = Arc::new(Stop::default());
        self.stops.push(Arc::clone(&stop));
        let (done, limits, name) = (done.clone(), self.limits, self.name);
        match (&self.queue, &self.encoding) {
            (QueueHandle::Traces(queue), Encoding::Traces(encoder)) => {
                self.worker(encoder, transport, queue, &stop).start(limits, done)?;
            }
            (QueueHandle::Lines(current, queue), Encoding::Lines(encoder)) => {
                self.worker(encoder, transport, queue, &stop).start(limits, done)?;
                current.0.store(level as usize, Ordering::Relaxed);
            }
            _ => unreachable!("a backend takes lines or traces, whatever its settings"),
        }
        let Some(task) = task else { return Ok(()) };
        thread::Builder::new().name(format!("{name}-task")).spawn(move || {
            logging::keep_to_stderr();
            task.run(&stop);
        })?;
        Ok(())
    }

    fn worker<T: Item>(
        &self,
        encoder: &Arc<dyn Encoder<T>>,
        transport: Box<dyn Transport>,
        queue: &Arc<Queue<Arc<T>>>,
        stop: &Arc<Stop>,
    ) -> Worker<T> {
        let (queue, stats) = (Arc::clone(queue), Arc::clone(&self.stats));
        Worker { encoder: Arc::clone(encoder), transport, queue, stats, stop: Arc::clone(stop) }
    }
}

impl QueueHandle {
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

impl LogSink for LineSink {
    fn level(&self) -> LevelFilter {
        let level = self.level.0.load(Ordering::Relaxed);
        LevelFilter::iter().find(|filter| *filter as usize == level).unwrap_or(LevelFilter::Off)
    }

    fn send(&self, line: &Arc<LogLine>) {
        push(&self.queue, &self.stats, line, line.size());
    }
}

pub(super) fn push<T: Item>(queue: &Queue<Arc<T>>, stats: &DeliveryStats, item: &Arc<T>, size: usize) {
    match queue.push(Arc::clone(item), item.count(), size) {
        Pushed::Taken => {}
        Pushed::Full => stats.queue_was_full(item.count(), Some(queue.limits().queue)),
        Pushed::FullOfBytes => stats.queue_was_full(item.count(), None),
        // Log lines written during the final flush are counted as not sent.
        Pushed::Closed => stats.not_sent(item.count()),
    }
}

impl Item for FinishedTrace {
    fn count(&self) -> usize {
        self.spans.len()
    }

    fn size(&self) -> usize {
        Self::size(self)
    }
}

impl Item for LogLine {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        Self::size(self)
    }
}

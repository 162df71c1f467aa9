//! Batch processor (OpenTelemetry's term): queue, counts and worker of one backend.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;

use super::backend::{BackgroundTask, Encoder, Encoding, Plan, State, Transport};
use super::deliveries::SharedSize;
use super::queue::{Item, PushResult, Queue};
use super::spool::{Spool, SpoolView};
use super::stats::DeliveryStats;
use super::stop::{Stop, StopReason};
use super::worker::{Storage, Worker};
use crate::logging::{self, LogLine, LogSink};
use crate::settings::{SpoolLimits, Values};
use crate::text::Message;
use crate::trace::FinishedTrace;
use crate::trace::id::IdSource;

/// One backend at run time. It exists even while the backend is off.
pub struct BatchProcessor {
    /// Plan in force, without its transport and its background task: the threads have them.
    pub plan: Plan,
    /// Counts and last deliveries.
    pub stats: Arc<DeliveryStats>,
    /// Stored payloads, if the backend stores any.
    pub spool: Option<Arc<Spool>>,
    pub(super) queue: QueueHandle,
    /// Stop handles of the current worker and of earlier workers that are still finishing.
    pub(super) stops: Vec<Arc<Stop>>,
}

/// Queue of a backend. It exists even while the backend is off.
pub(super) enum QueueHandle {
    Traces(Arc<Queue<Arc<FinishedTrace>>>),
    Lines(Arc<Level>, Arc<Queue<Arc<LogLine>>>),
}

/// Lowest level of the lines that a backend receives, as a number. 0 means no lines. It is atomic,
/// because it changes while other threads read it.
#[derive(Default)]
pub(super) struct Level(AtomicUsize);

/// Sink that pushes log lines into the queue of a backend.
pub(super) struct LineSink {
    pub(super) level: Arc<Level>,
    pub(super) queue: Arc<Queue<Arc<LogLine>>>,
    pub(super) stats: Arc<DeliveryStats>,
}

/// Time limit for a worker to finish after its backend was switched off or got new settings.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

impl BatchProcessor {
    /// Creates a backend that is off until [`Self::switch`]. `kept` is the size of the deliveries
    /// that all backends keep.
    pub(super) fn new(plan: &Plan, kept: &SharedSize) -> Self {
        let queue = match plan.encoding {
            Encoding::Traces(_) => QueueHandle::Traces(Arc::new(Queue::new(plan.limits))),
            Encoding::Lines(_) => QueueHandle::Lines(Arc::default(), Arc::new(Queue::new(plan.limits))),
        };
        Self {
            plan: Plan::new(plan.name, plan.encoding.clone(), plan.limits, Values::default()),
            stats: Arc::new(DeliveryStats::new(plan.name, plan.encoding.unit(), Arc::clone(kept))),
            spool: None,
            queue,
            stops: Vec::new(),
        }
    }

    /// Applies `plan`. Returns a description of the change, or `None` if only texts changed.
    pub(super) fn switch(&mut self, plan: Plan, done: &Sender<()>) -> io::Result<Option<String>> {
        let was_on = self.is_on();
        let before = std::mem::replace(&mut self.plan, plan);
        let (transport, task) = (self.plan.transport.take(), self.plan.task.take());
        self.set_spool(self.plan.spool.clone(), transport.is_some());
        let Plan { name, state, reason, destination, values, .. } = &self.plan;
        let Some(transport) = transport else {
            let change = (before.state != *state).then(|| format!("{name} {}: {reason}", state.as_str()));
            if was_on {
                self.stop();
            }
            return Ok(change);
        };
        let changed = values.changed_since(&before.values);
        let change = if was_on {
            format!("{name} has new settings ({}): {destination}", changed.join(", "))
        } else {
            format!("{name} on: {destination}")
        };
        if was_on && changed.is_empty() {
            // The worker, its task and its sampler stay.
            self.plan.sampler = before.sampler;
            return Ok(None);
        }
        // Even if the backend was off, an earlier worker may still be sending its last items.
        self.retire(StopReason::Replaced);
        if let (Some(before), Some(sampler)) = (&before.sampler, &self.plan.sampler)
            && let Some(state) = before.take_state()
        {
            sampler.restore_state(state);
        }
        if let Err(error) = self.start(transport, task, done) {
            self.stop();
            let what = Message::new(format!("cannot start a thread: {error}"));
            let reason = what.next("stop other programs, and save the settings again").to_string();
            self.plan.deactivate(State::Waiting, reason);
            return Err(error);
        }
        Ok(Some(change))
    }

    /// Returns the number of queued spans or lines.
    pub fn queued(&self) -> usize {
        match &self.queue {
            QueueHandle::Traces(queue) => queue.count(),
            QueueHandle::Lines(_, queue) => queue.count(),
        }
    }

    /// Returns the time until the queued items are sent at the latest, or `None` if the queue is
    /// empty.
    pub fn due_in(&self) -> Option<Duration> {
        match &self.queue {
            QueueHandle::Traces(queue) => queue.due_in(),
            QueueHandle::Lines(_, queue) => queue.due_in(),
        }
    }

    /// Returns true if the backend is on.
    pub fn is_on(&self) -> bool {
        self.plan.state == State::On
    }

    /// Replaces the spool if its limits have changed. Without a worker, what is stored is only listed.
    fn set_spool(&mut self, limits: Option<SpoolLimits>, has_worker: bool) {
        if self.spool.as_ref().map(|spool| &spool.limits) == limits.as_ref() {
            return;
        }
        let before = self.spool.take().map(|spool| spool.view());
        if let Some(SpoolView { directory, items: 1.., .. }) = &before
            && limits.as_ref().is_none_or(|limits| !Path::new(directory).starts_with(&limits.directory))
        {
            let unit = self.stats.unit;
            let what = format!("{unit} that are stored in {directory} stay there, because spool_dir has changed");
            log::warn!(target: self.plan.name, "{}", Message::new(what).next("set it again to send them"));
        }
        let Some(limits) = limits else { return };
        let counts = before.map(|view| view.counts).unwrap_or_default();
        let spool = Arc::new(Spool::new(limits, &self.stats, &IdSource::new(), counts));
        self.spool = Some(Arc::clone(&spool));
        if !has_worker {
            // Not on the request thread, because there may be thousands of files.
            let listing = thread::Builder::new().name(format!("{}-spool", self.plan.name)).spawn(move || spool.list());
            drop(listing);
        }
    }

    /// Asks the worker, and earlier ones that are still finishing, to end within [`STOP_TIMEOUT`].
    fn retire(&mut self, reason: StopReason) {
        // A worker that has ended has dropped its `Arc`, so the strong count is 1.
        self.stops.retain(|stop| Arc::strong_count(stop) > 1);
        self.stops.iter().for_each(|stop| stop.at(Instant::now() + STOP_TIMEOUT, reason));
    }

    /// Sends the queued items and accepts no more.
    fn stop(&mut self) {
        self.retire(StopReason::Off { before: self.stats.totals() });
        self.queue.close();
    }

    fn start(
        &mut self,
        transport: Box<dyn Transport>,
        task: Option<Box<dyn BackgroundTask>>,
        done: &Sender<()>,
    ) -> io::Result<()> {
        let stop = Arc::new(Stop::default());
        self.stops.push(Arc::clone(&stop));
        let (done, Plan { name, limits, level, .. }) = (done.clone(), &self.plan);
        match (&self.queue, &self.plan.encoding) {
            (QueueHandle::Traces(queue), Encoding::Traces(encoder)) => {
                self.worker(encoder, transport, queue, &stop).start(*limits, done)?;
            }
            (QueueHandle::Lines(current, queue), Encoding::Lines(encoder)) => {
                self.worker(encoder, transport, queue, &stop).start(*limits, done)?;
                current.0.store(*level as usize, Ordering::Relaxed);
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
        let storage = self.spool.as_ref().map(|spool| Storage::new(spool, &*transport));
        Worker {
            encoder: Arc::clone(encoder),
            transport,
            queue,
            stats,
            stop: Arc::clone(stop),
            storage,
            last_number: 0,
        }
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
        PushResult::Queued => {}
        PushResult::QueueFull => stats.queue_was_full(item.count(), Some(queue.limits().queue)),
        PushResult::MemoryFull => stats.queue_was_full(item.count(), None),
        // Log lines written during the final flush are counted as not sent.
        PushResult::Closed => stats.not_sent(item.count()),
    }
}

impl Item for FinishedTrace {
    fn count(&self) -> usize {
        self.spans.len()
    }

    fn size(&self) -> usize {
        Self::size(self)
    }

    fn time(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.start / 1_000_000)
    }
}

impl Item for LogLine {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        Self::size(self)
    }

    fn time(&self) -> u64 {
        self.time
    }
}

//! Worker thread of a backend. It takes a batch, encodes it, sends it, retries if that can help,
//! and counts the results. No error or panic of a worker reaches the request thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::backend::{Encoder, Outcome, Payload, Problem, Transport};
use super::encode::payloads;
use super::queue::{Generation, Item, Queue};
use super::stats::DeliveryStats;
use crate::logging;
use crate::settings::BatchLimits;
use crate::sync::lock;
use crate::text::Message;
use crate::trace::id::IdSource;
use crate::wire::retry::Retry;

/// Everything that one worker thread needs.
pub(super) struct Worker<T> {
    pub(super) encoder: Arc<dyn Encoder<T>>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) queue: Arc<Queue<Arc<T>>>,
    pub(super) stats: Arc<DeliveryStats>,
    pub(super) stop: Arc<Stop>,
    /// Number of the last delivery of this worker. 0 before the first.
    pub(super) last_number: u64,
}

/// Progress with one batch. It is kept outside of the code that may panic.
#[derive(Default)]
struct Progress {
    /// Number of the current delivery.
    number: u64,
    /// Number of items delivered, refused or dropped.
    settled: usize,
}

/// Result of one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum BatchResult {
    /// All items are delivered, refused or dropped.
    Settled,
    /// Nothing could be sent. The batch returns to the queue for the next worker.
    PutBack,
}

/// Stop signal for a worker and its background task.
#[derive(Default)]
pub struct Stop {
    request: Mutex<Option<StopRequest>>,
    wake: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct StopRequest {
    deadline: Instant,
    reason: StopReason,
}

/// Reason for a worker to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StopReason {
    /// The program ends.
    Program,
    /// The backend was switched off. The worker first sends the queued items.
    Off {
        /// Number of items lost before that.
        lost_before: u64,
    },
    /// The settings have changed. A batch that the worker cannot send goes to the next worker.
    Replaced,
}

impl<T: Item + Send + Sync + 'static> Worker<T> {
    /// Starts the thread and sets the limits of the queue. The thread holds `done` until it ends.
    pub(super) fn start(self, limits: BatchLimits, done: Sender<()>) -> io::Result<()> {
        let name = self.stats.name.to_owned();
        let generation = self.queue.attach_worker(limits);
        thread::Builder::new().name(name).spawn(move || {
            let _done = done;
            logging::keep_to_stderr();
            self.run(generation);
        })?;
        Ok(())
    }

    /// Sends batches until the queue is closed and empty, or another worker is attached.
    fn run(mut self, generation: Generation) {
        let random = IdSource::new();
        while let Some(batch) = self.queue.take(generation) {
            let count = batch.iter().map(|item| item.count()).sum();
            self.stats.taken(count);
            let mut progress = Progress::default();
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(&batch, &mut progress, &random)));
            match worked {
                Ok(BatchResult::Settled) => {}
                Ok(BatchResult::PutBack) => {
                    self.stats.put_back(count);
                    return self.queue.put_back(batch, |item| (item.count(), item.size()));
                }
                Err(_) => {
                    let message =
                        Message::new("panic while encoding or sending a batch (see above); the batch is lost")
                            .next("report this bug");
                    self.stats.deliveries.gave_up(progress.number);
                    self.stats.gave_up(count - progress.settled, &Problem::new("panic", message));
                }
            }
        }
        if let Some(StopRequest { reason: StopReason::Off { lost_before }, .. }) = self.stop.request() {
            self.stats.switched_off(lost_before);
        }
    }

    fn work(&mut self, batch: &[Arc<T>], progress: &mut Progress, random: &IdSource) -> BatchResult {
        for payload in payloads(&*self.encoder, batch, &*self.transport) {
            if let Some(problem) = &payload.trimmed {
                self.stats.trimmed(problem);
            }
            let payload = Arc::new(payload);
            progress.number = self.stats.deliveries.begin(&payload);
            if let Some(problem) = self.deliver(&payload, progress.number, random) {
                self.stats.deliveries.gave_up(progress.number);
                // If nothing of the batch was sent yet, the next worker gets it.
                let is_replaced = self.stop.request().is_some_and(|request| request.reason == StopReason::Replaced);
                if progress.settled == 0 && is_replaced {
                    return BatchResult::PutBack;
                }
                self.stats.gave_up(payload.items, &problem);
            }
            progress.settled += payload.items;
        }
        BatchResult::Settled
    }

    /// Sends the payload, retries if necessary, and counts the result. Returns the problem if the
    /// worker gives up.
    fn deliver(&mut self, payload: &Payload, number: u64, random: &IdSource) -> Option<Problem> {
        let count = payload.items;
        let mut retry = Retry::new(self.transport.max_elapsed_time(), self.transport.max_wait());
        let mut reconnected = false;
        loop {
            let deadline = self.stop.request().map(|request| request.deadline);
            let (after, problem) = match self.attempt(payload, number, retry.left(), deadline) {
                Outcome::Delivered => {
                    self.stats.delivered(count);
                    return None;
                }
                Outcome::Warned(problem) => {
                    self.stats.delivered(count);
                    self.stats.warned(&problem);
                    return None;
                }
                Outcome::Partly { rejected, problem } => {
                    self.stats.partly(count, rejected.min(count), &problem);
                    return None;
                }
                Outcome::Refused(problem) => {
                    self.stats.refused(count, &problem);
                    return None;
                }
                Outcome::Unconfirmed(problem) => {
                    self.stats.unconfirmed(count, &problem);
                    return None;
                }
                Outcome::Closed(_) if !reconnected => {
                    reconnected = true;
                    continue;
                }
                Outcome::Closed(problem) => (None, problem),
                Outcome::Later { after, problem } => (after, problem),
            };
            // Do not wait for another attempt after a stop request.
            if deadline.is_some() {
                return Some(problem);
            }
            let Some(wait) = retry.wait(after, random.fraction()) else { return Some(problem) };
            self.stats.will_retry(&problem);
            if self.stop.interrupts(wait) && after.is_some() {
                return Some(problem);
            }
        }
    }

    fn attempt(
        &mut self,
        payload: &Payload,
        number: u64,
        left: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Outcome {
        let until_stop = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = [left, until_stop].into_iter().flatten().min();
        let mut calls = Vec::with_capacity(1);
        let outcome = self.transport.deliver(payload, timeout, &mut calls);
        self.stats.deliveries.tried(number, calls, &outcome);
        // The number before may be that of an earlier worker that is still finishing.
        let previous = std::mem::replace(&mut self.last_number, number);
        if let Some(loss) = self.transport.take_loss() {
            self.stats.deliveries.lost(previous, &loss.problem);
            self.stats.lost_after_all(loss.items, &loss.problem);
        }
        outcome
    }
}

impl Stop {
    /// Asks the worker to end by `deadline`. An earlier deadline is kept; the reason is replaced.
    pub(super) fn at(&self, deadline: Instant, reason: StopReason) {
        let mut request = lock(&self.request);
        let deadline = request.map_or(deadline, |before| before.deadline.min(deadline));
        *request = Some(StopRequest { deadline, reason });
        self.wake.notify_all();
    }

    fn request(&self) -> Option<StopRequest> {
        *lock(&self.request)
    }

    /// Sleeps for `wait`. Returns true if a stop was requested before or meanwhile.
    pub fn interrupts(&self, wait: Duration) -> bool {
        let guard = lock(&self.request);
        let waited = self.wake.wait_timeout_while(guard, wait, |request| request.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

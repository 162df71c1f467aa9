//! Worker thread of a backend. It takes a batch, encodes it, sends it, retries if that can help,
//! and counts the results. No error or panic of a worker reaches the request thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::backend::{Encoder, Outcome, Payload, Problem, Transport};
use super::encode::payloads;
use super::queue::{Generation, Item, Queue};
use super::saver::{InMemory, Saver};
use super::spool::{Spool, Times};
use super::stats::DeliveryStats;
use super::stop::{Stop, StopReason, StopRequest};
use crate::logging;
use crate::settings::BatchLimits;
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
    /// Stored payloads, if the backend stores any.
    pub(super) storage: Option<Storage>,
    /// Number of the last delivery of this worker. 0 before the first.
    pub(super) last_number: u64,
}

/// The part of a worker that stores payloads and sends stored ones.
pub(super) struct Storage {
    pub(super) spool: Arc<Spool>,
    pub(super) in_memory: Arc<InMemory>,
    /// Time of the next attempt to send a stored payload.
    next: Instant,
    /// Waits between these attempts while they fail.
    retry: Retry,
    /// Time of the last attempt to send a new payload.
    last_attempt: Option<Instant>,
    /// End of the wait that the destination has asked for.
    asked_until: Option<Instant>,
}

/// A payload that is being sent, with the number of its delivery and its place in the batch.
#[derive(Clone, Copy)]
struct Sending<'a> {
    payload: &'a Payload,
    number: u64,
    index: usize,
}

/// Time limit of one call if the transport has no other.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// Pause between two stored payloads: as long as the call before it, within these limits. New batches
/// are sent first.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Pause while nothing is stored. An earlier worker or another process may store something.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// Time between two attempts to send a new payload while the destination is away. Stored ones are
/// tried more often, but the destination may have a reason to refuse exactly those.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(30);

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

impl<T: Item + Send + Sync + 'static> Worker<T> {
    /// Starts the thread and sets the limits of the queue. The thread holds `done` until it ends; with
    /// a spool, the saver holds it.
    pub(super) fn start(self, limits: BatchLimits, done: Sender<()>) -> io::Result<()> {
        let name = self.stats.name.to_owned();
        let generation = self.queue.attach_worker(limits);
        if let Some(storage) = &self.storage {
            let saver = Saver {
                encoder: Arc::clone(&self.encoder),
                gzip: self.transport.compresses(),
                queue: Arc::clone(&self.queue),
                stats: Arc::clone(&self.stats),
                stop: Arc::clone(&self.stop),
                spool: Arc::clone(&storage.spool),
                in_memory: Arc::clone(&storage.in_memory),
            };
            saver.start(generation, done.clone())?;
        }
        // With a spool the program need not wait for a call that hangs: the saver holds `done`.
        let done = self.storage.is_none().then_some(done);
        thread::Builder::new().name(name).spawn(move || {
            let _done = done;
            logging::keep_to_stderr();
            self.run(generation, limits);
        })?;
        Ok(())
    }

    fn run(mut self, generation: Generation, limits: BatchLimits) {
        if let Some(storage) = &self.storage {
            let longest_call = self.transport.max_elapsed_time().unwrap_or(LONGEST_CALL);
            storage.spool.open(limits.delay * 2 + longest_call);
        }
        let stop = Arc::clone(&self.stop);
        self.send_batches(generation);
        stop.ended();
    }

    /// Sends batches until the queue is closed and empty, or another worker is attached. Sends stored
    /// payloads while there is no batch.
    fn send_batches(&mut self, generation: Generation) {
        let random = IdSource::new();
        while let Some(batch) = self.queue.take_until(generation, self.storage.as_ref().map(|storage| storage.next)) {
            if batch.is_empty() {
                self.replay(&random);
                continue;
            }
            let count = batch.iter().map(|item| item.count()).sum();
            self.stats.taken(count);
            let mut progress = Progress::default();
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(&batch, &mut progress, &random)));
            // After a panic, or for the next worker, the saver must not store it too.
            if let Some(storage) = &self.storage {
                storage.in_memory.set(&[], Times::default(), self.transport.clock_offset());
            }
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
        if let Some(StopRequest { reason: StopReason::Off { before }, .. }) = self.stop.request() {
            self.stats.switched_off(&before);
        }
    }

    fn work(&mut self, batch: &[Arc<T>], progress: &mut Progress, random: &IdSource) -> BatchResult {
        let payloads = payloads(&*self.encoder, batch, &*self.transport).into_iter().map(Arc::new);
        let payloads: Vec<Arc<Payload>> = payloads.collect();
        if let Some(storage) = &self.storage {
            storage.in_memory.set(&payloads, Times::of(batch), self.transport.clock_offset());
        }
        for (index, payload) in payloads.iter().enumerate() {
            if self.storage.as_ref().is_some_and(|storage| storage.in_memory.is_stored(index)) {
                progress.settled += payload.items;
                continue;
            }
            if let Some(problem) = &payload.trimmed {
                self.stats.trimmed(problem);
            }
            progress.number = self.stats.deliveries.begin(payload);
            let sending = Sending { payload, number: progress.number, index };
            if let Some(problem) = self.deliver(sending, random) {
                self.stats.deliveries.gave_up(progress.number);
                // If nothing of the batch was sent yet, the next worker gets it.
                let is_replaced = self.stop.request().is_some_and(|request| request.reason == StopReason::Replaced);
                if progress.settled == 0 && is_replaced {
                    return BatchResult::PutBack;
                }
                if self.settle(index) {
                    self.stats.gave_up(payload.items, &problem);
                }
            }
            progress.settled += payload.items;
        }
        BatchResult::Settled
    }

    /// Sends the payload, retries if necessary, and counts the result. Returns the problem if the
    /// worker gives up.
    fn deliver(&mut self, sending: Sending<'_>, random: &IdSource) -> Option<Problem> {
        let Sending { payload, number, index } = sending;
        if self.storage.as_ref().is_some_and(Storage::stores_at_once) && self.store(sending, None) {
            return None;
        }
        let mut retry = Retry::new(self.transport.max_elapsed_time(), self.transport.max_wait());
        let mut reconnected = false;
        loop {
            let deadline = self.stop.request().map(|request| request.deadline);
            if let Some(storage) = &mut self.storage {
                storage.last_attempt = Some(Instant::now());
            }
            let (after, problem) = match self.attempt(payload, number, retry.left(), deadline) {
                Outcome::Closed(_) if !reconnected => {
                    reconnected = true;
                    continue;
                }
                Outcome::Closed(problem) => (None, problem),
                Outcome::Later { after, problem } => (after, problem),
                Outcome::RefusedForNow(problem) => {
                    if !self.store_after(sending, None, &problem, random) && self.settle(index) {
                        self.stats.refused(payload.items, &problem);
                    }
                    return None;
                }
                outcome => {
                    if self.settle(index) {
                        self.count(payload.items, &outcome);
                    }
                    return None;
                }
            };
            if self.store_after(sending, after, &problem, random) {
                return None;
            }
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

    /// Counts the result of a payload that will not be sent again.
    fn count(&self, items: usize, outcome: &Outcome) {
        if let (Some(storage), Outcome::Delivered | Outcome::Warned(_) | Outcome::Partly { .. }) =
            (&self.storage, outcome)
        {
            storage.spool.is_back();
        }
        match outcome {
            Outcome::Delivered => self.stats.delivered(items),
            Outcome::Warned(problem) => {
                self.stats.delivered(items);
                self.stats.warned(problem);
            }
            Outcome::Partly { rejected, problem } => self.stats.partly(items, (*rejected).min(items), problem),
            Outcome::Unconfirmed(problem) => self.stats.unconfirmed(items, problem),
            Outcome::Refused(problem) => self.stats.refused(items, problem),
            Outcome::RefusedForNow(_) | Outcome::Closed(_) | Outcome::Later { .. } => {
                unreachable!("it will be sent again")
            }
        }
    }

    /// Records that the result of a payload is known. Returns false if it counts as stored.
    fn settle(&self, index: usize) -> bool {
        self.storage.as_ref().is_none_or(|storage| storage.in_memory.settle(index, &storage.spool, &self.stats))
    }

    /// Stores a payload after an attempt that failed. Returns false if there is no spool, or if it
    /// cannot be written.
    fn store_after(
        &mut self,
        sending: Sending<'_>,
        after: Option<Duration>,
        problem: &Problem,
        random: &IdSource,
    ) -> bool {
        let Some(storage) = &self.storage else { return false };
        let problem = storage.spool.explain(problem);
        let is_stored = self.store(sending, Some(&problem));
        if let Some(storage) = self.storage.as_mut().filter(|_| is_stored) {
            storage.spool.is_away_now();
            storage.wait(after, &*self.transport, random);
        }
        is_stored
    }

    fn store(&self, Sending { number, index, .. }: Sending<'_>, problem: Option<&Problem>) -> bool {
        let Some(Storage { spool, in_memory, .. }) = &self.storage else { return false };
        let is_stored = in_memory.store(index, spool, &self.stats, self.transport.compresses(), problem);
        if is_stored {
            self.stats.deliveries.stored(number);
        }
        is_stored
    }

    /// Sends the next stored payload, if there is one.
    fn replay(&mut self, random: &IdSource) {
        let Some(storage) = &mut self.storage else { return };
        let spool = Arc::clone(&storage.spool);
        let Some(replay) = spool.next(&*self.transport) else {
            storage.next = Instant::now() + IDLE_PAUSE;
            return;
        };
        storage.in_memory.set_replaying(true);
        let began = Instant::now();
        let sent = catch_unwind(AssertUnwindSafe(|| self.send_stored(&replay.payload)));
        let Some(storage) = &mut self.storage else { return };
        match sent {
            Ok(Ok(rejected)) => {
                spool.settle(replay, rejected);
                storage.retry = Storage::retry(&*self.transport);
                storage.next = Instant::now() + began.elapsed().clamp(MIN_PAUSE, MAX_PAUSE);
            }
            Ok(Err(after)) => {
                spool.failed(&replay);
                storage.wait(after, &*self.transport, random);
            }
            Err(_) => spool.panicked(&replay),
        }
        storage.in_memory.set_replaying(false);
    }

    /// Sends a stored payload. Returns the number of items that were rejected, or, if it must be sent
    /// again, the wait that the destination asked for.
    fn send_stored(&mut self, payload: &Arc<Payload>) -> Result<usize, Option<Duration>> {
        let number = self.stats.deliveries.begin(payload);
        let limit = self.transport.max_elapsed_time();
        let mut outcome = self.attempt(payload, number, limit, None);
        if matches!(outcome, Outcome::Closed(_)) && self.stop.request().is_none() {
            outcome = self.attempt(payload, number, limit, None);
        }
        // The counts of the spool include these items, those of the backend do not.
        let rejected = match &outcome {
            Outcome::Delivered | Outcome::Warned(_) => 0,
            Outcome::Partly { rejected, .. } => *rejected,
            Outcome::Refused(_) | Outcome::Unconfirmed(_) => payload.items,
            Outcome::Closed(problem) | Outcome::RefusedForNow(problem) | Outcome::Later { problem, .. } => {
                if let Some(storage) = &self.storage {
                    self.stats.will_retry(&storage.spool.explain(problem));
                }
                self.stats.deliveries.stored(number);
                let Outcome::Later { after, .. } = outcome else { return Err(None) };
                return Err(after);
            }
        };
        self.count(0, &outcome);
        Ok(rejected)
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

impl Storage {
    pub(super) fn new(spool: &Arc<Spool>, transport: &dyn Transport) -> Self {
        let (spool, in_memory) = (Arc::clone(spool), Arc::default());
        Self {
            spool,
            in_memory,
            next: Instant::now(),
            retry: Self::retry(transport),
            last_attempt: None,
            asked_until: None,
        }
    }

    /// Returns true if a new payload is stored without an attempt, because the destination is away, or
    /// has asked for a wait.
    fn stores_at_once(&self) -> bool {
        let is_early = self.last_attempt.is_some_and(|last| last.elapsed() < ATTEMPT_INTERVAL);
        self.spool.is_away() && (is_early || self.asked_until.is_some_and(|until| until > Instant::now()))
    }

    /// Sets the time of the next attempt to send a stored payload after a failure.
    fn wait(&mut self, after: Option<Duration>, transport: &dyn Transport, random: &IdSource) {
        let mut wait = self.retry.wait(after, random.fraction());
        if wait.is_none() {
            // So many waits were asked for that a payload in memory would be given up.
            self.retry = Self::retry(transport);
            wait = self.retry.wait(after, random.fraction());
        }
        self.next = Instant::now() + wait.unwrap_or(ATTEMPT_INTERVAL);
        self.asked_until = after.map(|_| self.next);
    }

    /// The waits between attempts that fail. There is no limit of time.
    fn retry(transport: &dyn Transport) -> Retry {
        Retry::new(None, transport.max_wait())
    }
}

//! Second thread of a backend with a spool. It stores what the worker cannot send in time: batches
//! that wait while the worker waits for a response, and at the end of the program everything that is
//! still in memory.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::backend::{Encoder, Payload, Problem};
use super::encode::encoded;
use super::queue::{Generation, Item, Queue};
use super::spool::{Spool, Times};
use super::stats::DeliveryStats;
use super::worker::{Stop, StopReason, StopRequest};
use crate::logging;
use crate::sync::lock;
use crate::text::Message;

/// Everything that the thread needs.
pub(super) struct Saver<T> {
    pub(super) encoder: Arc<dyn Encoder<T>>,
    pub(super) gzip: bool,
    pub(super) queue: Arc<Queue<Arc<T>>>,
    pub(super) stats: Arc<DeliveryStats>,
    pub(super) stop: Arc<Stop>,
    pub(super) spool: Arc<Spool>,
    pub(super) in_memory: Arc<InMemory>,
}

/// Payloads that the worker has encoded, without those that are settled or stored. The first is being
/// sent.
#[derive(Default)]
pub(super) struct InMemory(Mutex<Encoded>);

#[derive(Default)]
struct Encoded {
    payloads: VecDeque<Arc<Payload>>,
    times: Times,
    clock_offset: i64,
}

/// Time before the deadline of a stop at which the thread begins to store, or a quarter of the time
/// that is left, if that is less.
const RESERVE: Duration = Duration::from_secs(1);
/// Pause after a batch that could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

impl<T: Item + Send + Sync + 'static> Saver<T> {
    /// Starts the thread. It holds `done` until it ends.
    pub(super) fn start(self, generation: Generation, done: Sender<()>) -> io::Result<()> {
        thread::Builder::new().name(format!("{}-saver", self.stats.name)).spawn(move || {
            let _done = done;
            logging::keep_to_stderr();
            self.run(generation);
        })?;
        Ok(())
    }

    fn run(self, generation: Generation) {
        while let Some(batch) = self.queue.take_overdue(generation) {
            if let Err(rest) = self.store(batch) {
                self.queue.put_back(rest, |item| (item.count(), item.size()));
                self.stop.interrupts(PAUSE);
            }
        }
        let Some(StopRequest { deadline, reason }) = self.stop.request() else { return };
        let reserve = RESERVE.min(deadline.saturating_duration_since(Instant::now()) / 4);
        if reason == StopReason::Replaced || self.stop.wait_for_end(deadline - reserve) {
            return;
        }
        while self.in_memory.store(&self.spool, &self.stats, self.gzip, None) && !self.in_memory.is_empty() {}
        while let Some(batch) = self.queue.take(generation) {
            if let Err(rest) = self.store(batch) {
                // They are counted as dropped when the program ends.
                return self.queue.put_back(rest, |item| (item.count(), item.size()));
            }
        }
    }

    /// Encodes and stores a batch. Returns the batch if that fails.
    fn store(&self, batch: Vec<Arc<T>>) -> Result<(), Vec<Arc<T>>> {
        let count: usize = batch.iter().map(|item| item.count()).sum();
        let offset = self.in_memory.clock_offset();
        let Ok(payloads) = catch_unwind(AssertUnwindSafe(|| encoded(&*self.encoder, &batch, offset, self.gzip))) else {
            let message = Message::new("panic while encoding a batch (see above); the batch is lost");
            self.stats.taken(count);
            self.stats.gave_up(count, &Problem::new("panic", message.next("report this bug")));
            return Ok(());
        };
        let times = Times::of(&batch);
        for (index, payload) in payloads.iter().enumerate() {
            if !self.spool.store(payload, self.gzip, times) {
                if index == 0 {
                    return Err(batch);
                }
                // A part is stored, so the batch cannot be encoded again.
                let message = Message::new("a part of a batch could not be stored, and is lost").next("see above");
                self.stats.taken(payload.items);
                self.stats.gave_up(payload.items, &Problem::new("not stored", message));
                continue;
            }
            self.stats.taken(payload.items);
            self.stats.stored(payload.items, None);
        }
        Ok(())
    }
}

impl InMemory {
    /// Sets the payloads of a new batch.
    pub(super) fn set(&self, payloads: &[Arc<Payload>], times: Times, clock_offset: i64) {
        *lock(&self.0) = Encoded { payloads: payloads.iter().map(Arc::clone).collect(), times, clock_offset };
    }

    /// Forgets the payloads of a batch that is not sent.
    pub(super) fn clear(&self) {
        lock(&self.0).payloads.clear();
    }

    /// Removes the first payload, because its result is known. Returns false if there is none, because
    /// all were stored.
    pub(super) fn settle(&self) -> bool {
        lock(&self.0).payloads.pop_front().is_some()
    }

    /// Stores and counts the first payload, if there is one. `problem` is the reason, if there was an
    /// attempt to send it. Returns false if it cannot be stored.
    pub(super) fn store(&self, spool: &Spool, stats: &DeliveryStats, gzip: bool, problem: Option<&Problem>) -> bool {
        // The lock is held meanwhile, so that worker and saver do not store the same payload.
        let mut encoded = lock(&self.0);
        let Some(payload) = encoded.payloads.front() else { return true };
        if !spool.store(payload, gzip, encoded.times) {
            return false;
        }
        stats.stored(payload.items, problem);
        encoded.payloads.pop_front();
        true
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).payloads.is_empty()
    }

    fn clock_offset(&self) -> i64 {
        lock(&self.0).clock_offset
    }
}

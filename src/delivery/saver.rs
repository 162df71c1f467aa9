//! Second thread of a backend with a spool. It stores what the worker cannot send in time: batches
//! that wait while the worker waits for a response, and at the end of the program everything that is
//! still in memory.

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
use super::stop::Stop;
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

/// Payloads of the batch that the worker is sending. The saver stores those whose result is not known
/// when the program ends.
#[derive(Default)]
pub(super) struct InMemory(Mutex<Encoded>);

#[derive(Default)]
struct Encoded {
    payloads: Vec<(Arc<Payload>, Fate)>,
    times: Times,
    clock_offset: i64,
    /// Number of results so far, of all batches.
    results: u64,
    /// True while the worker sends a stored payload. Then it has nothing in memory.
    is_replaying: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Fate {
    /// It waits, or is being sent.
    Pending,
    /// It is stored in this file, and counted as stored.
    Stored(String),
    /// The worker has counted its result.
    Settled,
}

/// Time before the deadline of a stop at which what is being sent is stored. The queue is stored if the
/// worker has no result for so long, and at the latest so long before that. A quarter of the time that
/// is left, if that is less.
const RESERVE: Duration = Duration::from_secs(1);
/// Pause after a batch that could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

impl<T: Item + Send + Sync + 'static> Saver<T> {
    /// Starts the thread. It holds `done` until everything is sent or stored.
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
            if !self.store(batch) {
                self.stop.interrupts(PAUSE);
            }
        }
        // The queue is closed, or another worker has it. This worker sends the rest while it can.
        let reserve = RESERVE.min(self.stop.time_left() / 4);
        let mut results = None;
        while !self.spool.is_away() && results != Some(self.in_memory.results()) {
            results = Some(self.in_memory.results());
            let patience = Instant::now() + reserve;
            if self.stop.wait_for_end(|deadline| patience.min(deadline - reserve * 2)) {
                return;
            }
        }
        while let Some(batch) = self.queue.take(generation) {
            if !self.store(batch) {
                // They are counted as dropped when the program ends.
                break;
            }
        }
        if self.in_memory.is_replaying() || self.stop.wait_for_end(|deadline| deadline - reserve) {
            return;
        }
        self.in_memory.store_all(&self.spool, &self.stats, self.gzip);
    }

    /// Encodes and stores a batch. If that fails, puts the batch back and returns false.
    fn store(&self, batch: Vec<Arc<T>>) -> bool {
        let count: usize = batch.iter().map(|item| item.count()).sum();
        self.stats.taken(count);
        let stored = catch_unwind(AssertUnwindSafe(|| self.try_store(&batch)));
        match stored {
            Ok(true) => self.stats.stored(count, None),
            Ok(false) => {
                self.stats.put_back(count);
                self.queue.put_back(batch, |item| (item.count(), item.size()));
                return false;
            }
            Err(_) => {
                let message = Message::new("panic while encoding a batch (see above); the batch is lost");
                self.stats.gave_up(count, &Problem::new("panic", message.next("report this bug")));
            }
        }
        true
    }

    fn try_store(&self, batch: &[Arc<T>]) -> bool {
        let (offset, times) = (self.in_memory.clock_offset(), Times::of(batch));
        let mut names: Vec<String> = Vec::new();
        for payload in encoded(&*self.encoder, batch, offset, self.gzip) {
            let Some(name) = self.spool.store(&payload, self.gzip, times) else {
                // The whole batch goes back.
                for name in &names {
                    self.spool.withdraw(name);
                }
                return false;
            };
            payload.trimmed.iter().for_each(|problem| self.stats.trimmed(problem));
            names.push(name);
        }
        true
    }
}

impl InMemory {
    /// Sets the payloads of a new batch. None, if there is no batch.
    pub(super) fn set(&self, payloads: &[Arc<Payload>], times: Times, clock_offset: i64) {
        let payloads = payloads.iter().map(|payload| (Arc::clone(payload), Fate::Pending)).collect();
        let mut encoded = lock(&self.0);
        *encoded = Encoded { payloads, times, clock_offset, results: encoded.results, is_replaying: false };
    }

    /// Sets whether the worker sends a stored payload.
    pub(super) fn set_replaying(&self, is_replaying: bool) {
        lock(&self.0).is_replaying = is_replaying;
    }

    /// Returns true if the payload is already stored, so the worker must not send it.
    pub(super) fn is_stored(&self, index: usize) -> bool {
        matches!(lock(&self.0).payloads.get(index), Some((_, Fate::Stored(_))))
    }

    /// Records that the result of a payload is known. Returns true if the worker has to count it. If
    /// the payload was stored meanwhile, it is withdrawn.
    pub(super) fn settle(&self, index: usize, spool: &Spool, stats: &DeliveryStats) -> bool {
        let mut encoded = lock(&self.0);
        encoded.results += 1;
        let Some((payload, fate)) = encoded.payloads.get_mut(index) else { return true };
        match std::mem::replace(fate, Fate::Settled) {
            Fate::Pending | Fate::Settled => true,
            Fate::Stored(name) => spool.withdraw(&name) && stats.withdrawn(payload.items),
        }
    }

    /// Stores and counts a payload, unless that was done before. `problem` is the reason, if there was an
    /// attempt to send it. Returns false if it cannot be stored.
    pub(super) fn store(
        &self,
        index: usize,
        spool: &Spool,
        stats: &DeliveryStats,
        gzip: bool,
        problem: Option<&Problem>,
    ) -> bool {
        // The lock is held meanwhile, so that worker and saver do not store the same payload.
        let mut encoded = lock(&self.0);
        let times = encoded.times;
        let Some((payload, fate)) = encoded.payloads.get_mut(index) else { return false };
        if *fate == Fate::Pending {
            let Some(name) = spool.store(payload, gzip, times) else { return false };
            *fate = Fate::Stored(name);
            stats.stored(payload.items, problem);
        }
        true
    }

    fn store_all(&self, spool: &Spool, stats: &DeliveryStats, gzip: bool) {
        let count = lock(&self.0).payloads.len();
        for index in 0..count {
            self.store(index, spool, stats, gzip, None);
        }
    }

    fn results(&self) -> u64 {
        lock(&self.0).results
    }

    fn is_replaying(&self) -> bool {
        lock(&self.0).is_replaying
    }

    fn clock_offset(&self) -> i64 {
        lock(&self.0).clock_offset
    }
}

#[cfg(test)]
mod tests {
    use super::super::deliveries::SharedSize;
    use super::super::stats::Totals;
    use super::*;
    use crate::settings::SpoolLimits;
    use crate::trace::id::IdSource;

    #[test]
    fn a_payload_that_was_stored_and_sent_after_all_counts_once_and_is_not_sent_again() {
        let directory = std::env::temp_dir().join(format!("cruddur-saver-{}", IdSource::new().uuid()));
        let stats = Arc::new(DeliveryStats::new("test", "spans", SharedSize::default()));
        let limits = SpoolLimits { directory: directory.clone(), max_bytes: 1 << 20, max_age: RESERVE };
        let spool = Spool::new(limits, &stats, &IdSource::new(), Default::default());
        let payload = |items| Arc::new(Payload { bytes: vec![b'x'], items, traces: Vec::new(), trimmed: None });
        let in_memory = InMemory::default();
        in_memory.set(&[payload(1), payload(10), payload(100)], Times::default(), 0);
        stats.taken(111);
        // The first is sent. The others are stored, and the call of the second is answered after that.
        assert!(in_memory.settle(0, &spool, &stats));
        stats.delivered(1);
        in_memory.store_all(&spool, &stats, false);
        assert_eq!([0, 1, 2].map(|index| in_memory.is_stored(index)), [false, true, true]);
        assert!(in_memory.settle(1, &spool, &stats));
        stats.delivered(10);
        assert_eq!(stats.totals(), Totals { delivered: 11, stored: 100, ..Totals::default() });
        assert_eq!(spool.view().items, 100);
        // After the program has counted everything, it is too late for that.
        stats.close(0);
        assert!(!in_memory.settle(2, &spool, &stats));
        drop(spool);
        drop(std::fs::remove_dir_all(directory));
    }
}

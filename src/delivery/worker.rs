//! One thread a backend: takes a batch, has it encoded, delivers it, tries again where that makes sense, and keeps the
//! books. Whatever goes wrong here, the request thread does not notice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Problem};
use super::queue::{Queue, Turn, Weigh};
use crate::backends::{Backend, Outcome, Payload};
use crate::logging;
use crate::sync::lock;
use crate::trace::id::IdSource;
use crate::wire::retry::Retry;

/// What one worker works with.
pub(super) struct Worker<T> {
    pub(super) backend: Box<dyn Backend<T>>,
    pub(super) queue: Arc<Queue<Arc<T>>>,
    pub(super) turn: Turn,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Arc<Stop>,
    /// Only for jitter.
    pub(super) random: IdSource,
    /// The number of the delivery in hand.
    pub(super) number: u64,
    /// How much of the batch in hand has met its end.
    pub(super) settled: usize,
    /// The batch in hand is for the next worker.
    pub(super) goes_back: bool,
}

/// The end of a worker's work, as it learns of it.
#[derive(Default)]
pub struct Stop {
    told: Mutex<Option<Told>>,
    wake: Condvar,
}

/// What a worker was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    deadline: Instant,
    why: Why,
}

/// Why a worker ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// The program ends.
    Program,
    /// The backend was switched off: what waits is sent first.
    Off {
        /// How much had been lost by then.
        lost_before: u64,
    },
    /// Its settings have changed: what it cannot send, the next worker will.
    Replaced,
}

impl<T: Weigh> Worker<T> {
    /// Works until the queue is closed and empty, or another worker's.
    pub(super) fn run(mut self) {
        logging::keep_to_stderr();
        while let Some(batch) = self.queue.take(self.turn) {
            let weight = batch.iter().map(|item| item.weight()).sum();
            self.ledger.taken(weight);
            self.settled = 0;
            let worked = catch_unwind(AssertUnwindSafe(|| {
                for payload in self.backend.encode(&batch) {
                    if let Some(problem) = &payload.trimmed {
                        self.ledger.trimmed(problem);
                    }
                    let items = payload.items;
                    self.deliver(&Arc::new(payload));
                    if self.goes_back {
                        return;
                    }
                    self.settled += items;
                }
            }));
            if worked.is_err() {
                let text =
                    "a bug: the panic above came from encoding or sending a batch, which is lost; please report it";
                self.ledger.deliveries.gave_up(self.number);
                self.ledger
                    .gave_up(weight - self.settled, &Problem { kind: "panic".to_owned(), text: text.to_owned() });
            } else if self.goes_back {
                self.ledger.put_back(weight);
                self.queue.put_back(batch, |item| (item.weight(), item.size()));
                return;
            }
        }
        if let Some(Told { why: Why::Off { lost_before }, .. }) = self.stop.told() {
            self.ledger.switched_off(lost_before);
        }
    }

    fn deliver(&mut self, payload: &Arc<Payload>) {
        self.number = self.ledger.deliveries.begin(payload);
        let count = payload.items;
        let mut retry = Retry::new(self.backend.budget(), self.backend.longest_wait());
        let mut reconnected = false;
        loop {
            let deadline = self.stop.told().map(|told| told.deadline);
            let until_exit = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let patience = [retry.left(), until_exit].into_iter().flatten().min();
            let mut seen = Vec::new();
            let outcome = self.backend.deliver(payload, patience, &mut seen);
            self.ledger.deliveries.tried(self.number, seen, &outcome);
            let (after, problem) = match outcome {
                Outcome::Delivered => return self.ledger.delivered(count),
                Outcome::DeliveredAfterLoss { lost, said } => {
                    self.ledger.lost_after_all(lost, &said);
                    return self.ledger.delivered(count);
                }
                Outcome::Partly { rejected: 0, said } => {
                    self.ledger.delivered(count);
                    return self.ledger.warned(&said);
                }
                Outcome::Partly { rejected, said } => return self.ledger.partly(count, rejected.min(count), &said),
                Outcome::Refused(problem) => return self.ledger.refused(count, &problem),
                Outcome::Closed(_) if !reconnected => {
                    reconnected = true;
                    continue;
                }
                Outcome::Closed(problem) => (None, problem),
                Outcome::Later { after, said } => (after, said),
            };
            // After the call to stop, waiting for better times makes no sense.
            if deadline.is_some() {
                return self.give_up(count, &problem);
            }
            let Some(wait) = retry.wait(after, self.random.fraction()) else {
                return self.give_up(count, &problem);
            };
            self.ledger.will_retry(&problem);
            if self.stop.interrupts(wait) && after.is_some() {
                return self.give_up(count, &problem);
            }
        }
    }

    /// A batch of which nothing has left yet goes to the next worker, if there is one.
    fn give_up(&mut self, count: usize, problem: &Problem) {
        self.ledger.deliveries.gave_up(self.number);
        self.goes_back = self.settled == 0 && self.stop.told().is_some_and(|told| told.why == Why::Replaced);
        if !self.goes_back {
            self.ledger.gave_up(count, problem);
        }
    }
}

impl Stop {
    /// Everything has to be over by `deadline`; what was said before counts no more, unless it was sooner.
    pub(super) fn at(&self, deadline: Instant, why: Why) {
        let mut told = lock(&self.told);
        let deadline = told.map_or(deadline, |before| before.deadline.min(deadline));
        *told = Some(Told { deadline, why });
        self.wake.notify_all();
    }

    fn told(&self) -> Option<Told> {
        *lock(&self.told)
    }

    /// Waits that long; true if the work was told to end meanwhile.
    pub fn interrupts(&self, wait: Duration) -> bool {
        let guard = lock(&self.told);
        let (guard, _) =
            self.wake.wait_timeout_while(guard, wait, |told| told.is_none()).unwrap_or_else(PoisonError::into_inner);
        guard.is_some()
    }
}

//! One thread a backend: takes a batch, has it encoded, delivers it, tries again where that makes sense, and keeps the
//! books. Whatever goes wrong here, the request thread does not notice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Problem};
use super::queue::{Queue, Weigh};
use crate::backends::{Backend, Outcome, Payload};
use crate::logging;
use crate::sync::lock;
use crate::trace::id::IdSource;
use crate::wire::retry::Retry;

/// What one worker works with.
pub(super) struct Worker<T> {
    pub(super) backend: Box<dyn Backend<T>>,
    pub(super) queue: Arc<Queue<Arc<T>>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Arc<Stop>,
    /// Only for jitter.
    pub(super) random: IdSource,
}

/// The end of the program, as its workers learn of it.
#[derive(Default)]
pub struct Stop {
    deadline: Mutex<Option<Instant>>,
    wake: Condvar,
}

impl<T: Weigh> Worker<T> {
    /// Works until the queue is closed and empty, or the deadline has passed.
    pub(super) fn run(mut self) {
        logging::keep_to_stderr();
        while let Some(batch) = self.queue.take() {
            let weight = batch.iter().map(|item| item.weight()).sum();
            self.ledger.taken(weight);
            let mut settled = 0;
            let worked = catch_unwind(AssertUnwindSafe(|| {
                for payload in self.backend.encode(&batch) {
                    if let Some(problem) = &payload.trimmed {
                        self.ledger.trimmed(problem);
                    }
                    let items = payload.items;
                    self.deliver(&Arc::new(payload));
                    settled += items;
                }
            }));
            if worked.is_err() {
                let text =
                    "a bug: the panic above came from encoding or sending a batch, which is lost; please report it";
                self.ledger.deliveries.gave_up();
                self.ledger.gave_up(weight - settled, &Problem { kind: "panic".to_owned(), text: text.to_owned() });
            }
        }
    }

    fn deliver(&mut self, payload: &Arc<Payload>) {
        self.ledger.deliveries.begin(payload);
        let count = payload.items;
        let mut retry = Retry::new(self.backend.budget(), self.backend.longest_wait());
        let mut reconnected = false;
        loop {
            let deadline = self.stop.deadline();
            let until_exit = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let patience = [retry.left(), until_exit].into_iter().flatten().min();
            let mut seen = Vec::new();
            let outcome = self.backend.deliver(payload, patience, &mut seen);
            self.ledger.deliveries.tried(seen, &outcome);
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

    fn give_up(&self, count: usize, problem: &Problem) {
        self.ledger.deliveries.gave_up();
        self.ledger.gave_up(count, problem);
    }
}

impl Stop {
    /// Everything has to be over by `deadline`.
    pub(super) fn at(&self, deadline: Instant) {
        *lock(&self.deadline) = Some(deadline);
        self.wake.notify_all();
    }

    fn deadline(&self) -> Option<Instant> {
        *lock(&self.deadline)
    }

    /// Waits that long; true if the program was told to stop meanwhile.
    pub fn interrupts(&self, wait: Duration) -> bool {
        let guard = lock(&self.deadline);
        let (guard, _) = self
            .wake
            .wait_timeout_while(guard, wait, |deadline| deadline.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        guard.is_some()
    }
}

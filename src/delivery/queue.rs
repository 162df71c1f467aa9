//! A bounded queue between the request thread and one worker.
//!
//! It outlives its worker: when the settings change, another one takes over what waits, and nothing is lost between them.
//!
//! Waking a sleeping thread costs more than answering a request, so a push wakes the worker in two cases only: it was
//! idle (then it starts its clock), or a batch is full. In between the worker sleeps until its clock says "send".

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::BatchLimits;
use crate::sync::lock;

/// What a queue holds in memory, whatever its limits say: clients decide how long the heads are that end up in spans.
pub(super) const MAX_QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// The items that wait for one worker. Limits count what items carry: a trace counts as many spans as it has.
pub struct Queue<T> {
    state: Mutex<QueueState<T>>,
    wake: Condvar,
}

/// What can wait in a queue.
pub trait Item {
    /// How much of a batch it makes: a trace counts as many spans as it has, a log line as one.
    fn count(&self) -> usize;

    /// About how many bytes it takes in memory.
    fn size(&self) -> usize;
}

/// What became of an item that was pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pushed {
    /// It waits for its batch.
    Taken,
    /// It did not fit, and is gone.
    Full,
    /// It would have made more than what fits in memory, and is gone.
    FullOfBytes,
    /// Nobody works any more, and it is gone.
    Closed,
}

/// Which worker may take from a queue: only the one that was attached last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Generation(u64);

struct QueueState<T> {
    limits: BatchLimits,
    generation: Generation,
    /// Each with its count and its size.
    items: VecDeque<(T, usize, usize)>,
    count: usize,
    size: usize,
    /// When the batch that waits is due; `None` while the worker is idle.
    due: Option<Instant>,
    /// True once the worker has been woken for the current batch.
    woken: bool,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue, closed until it is given to a worker.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        let (items, generation) = (VecDeque::new(), Generation(0));
        let state = QueueState { limits, generation, items, count: 0, size: 0, due: None, woken: false, closed: true };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Opens it for a new worker, with these limits from now on. The one before, if there is one, takes nothing more.
    pub fn attach_worker(&self, limits: BatchLimits) -> Generation {
        let mut state = lock(&self.state);
        state.limits = limits;
        state.generation.0 += 1;
        state.closed = false;
        // What waits is not to wait longer than the new delay.
        if let Some(due) = state.due {
            state.due = Some(due.min(Instant::now() + limits.delay));
        }
        self.wake.notify_all();
        state.generation
    }

    /// Puts a batch back to where it came from, for the next worker. It is taken even if there is no room for it.
    pub fn put_back(&self, batch: Vec<T>, count_and_size: impl Fn(&T) -> (usize, usize)) {
        let mut state = lock(&self.state);
        for item in batch.into_iter().rev() {
            let (count, size) = count_and_size(&item);
            state.count += count;
            state.size += size;
            state.items.push_front((item, count, size));
        }
        state.due = Some(Instant::now());
        self.wake.notify_all();
    }

    /// Adds an item, if it fits.
    pub fn push(&self, item: T, count: usize, size: usize) -> Pushed {
        let mut state = lock(&self.state);
        // What is heavier than the whole queue passes through an empty one.
        if state.closed {
            return Pushed::Closed;
        }
        if state.count + count > state.limits.queue && state.count > 0 {
            return Pushed::Full;
        }
        if state.size + size > MAX_QUEUE_BYTES && state.count > 0 {
            return Pushed::FullOfBytes;
        }
        state.items.push_back((item, count, size));
        state.count += count;
        state.size += size;
        let wake = !state.woken && (state.due.is_none() || state.count >= state.limits.batch);
        if state.due.is_none() {
            state.due = Some(Instant::now() + state.limits.delay);
            state.woken = state.count >= state.limits.batch;
        } else {
            state.woken |= wake;
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Pushed::Taken
    }

    /// The next batch, once it is full or due; at most one batch's count, but never less than one item. `None` when
    /// the queue is closed and empty, or is another worker's by now.
    pub fn take(&self, generation: Generation) -> Option<Vec<T>> {
        let mut state = lock(&self.state);
        loop {
            if state.generation != generation {
                return None;
            }
            let now = Instant::now();
            let due = state.due.is_some_and(|due| due <= now) || state.count >= state.limits.batch || state.closed;
            if due && !state.items.is_empty() {
                return Some(Self::take_batch(&mut state));
            }
            if state.closed {
                return None;
            }
            state = match state.due {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(now);
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn take_batch(state: &mut QueueState<T>) -> Vec<T> {
        let mut batch = Vec::new();
        let mut count = 0;
        while let Some((_, next, _)) = state.items.front() {
            if !batch.is_empty() && count + next > state.limits.batch {
                break;
            }
            let Some((item, next, size)) = state.items.pop_front() else { break };
            count += next;
            state.size -= size;
            batch.push(item);
        }
        state.count -= count;
        // What stays came later than what leaves, so its time is not before this.
        state.due = state.due.filter(|_| !state.items.is_empty());
        state.woken = false;
        batch
    }

    /// Takes nothing more; what waits can still be taken, without waiting for its batch to fill.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_all();
    }

    /// The count of what waits.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.state).count
    }

    /// How long it is until the batch that waits is due; `None` if none waits.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        lock(&self.state).due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> BatchLimits {
        lock(&self.state).limits
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn limits(delay_ms: u64, queue: usize, batch: usize) -> BatchLimits {
        BatchLimits { delay: Duration::from_millis(delay_ms), queue, batch }
    }

    fn opened<T>(limits: BatchLimits) -> (Queue<T>, Generation) {
        let queue = Queue::new(limits);
        let generation = queue.attach_worker(limits);
        (queue, generation)
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_rest_kept() {
        let (queue, generation) = opened(limits(1, 5, 5));
        assert_eq!(queue.push("a", 3, 0), Pushed::Taken);
        assert_ne!(queue.push("b", 3, 0), Pushed::Taken);
        assert_eq!(queue.push("c", 2, 0), Pushed::Taken);
        assert_eq!(queue.count(), 5);
        assert_eq!(queue.take(generation), Some(vec!["a", "c"]));
        assert_eq!(queue.count(), 0);
    }

    #[test]
    fn memory_is_bounded_whatever_the_limits_say() {
        let (queue, generation) = opened(limits(1, 1000, 2));
        for (item, pushed) in [("a", Pushed::Taken), ("b", Pushed::Taken), ("c", Pushed::FullOfBytes)] {
            assert_eq!(queue.push(item, 1, MAX_QUEUE_BYTES / 2), pushed);
        }
        assert_eq!(queue.take(generation), Some(vec!["a", "b"]));
        assert_eq!(queue.push("one that is larger than all", 1, 2 * MAX_QUEUE_BYTES), Pushed::Taken);
        assert_eq!(queue.push("d", 1, 0), Pushed::FullOfBytes);
        assert_eq!(queue.take(generation), Some(vec!["one that is larger than all"]));
        queue.put_back(vec!["e"], |_| (1, MAX_QUEUE_BYTES));
        assert_eq!(queue.push("f", 1, 1), Pushed::FullOfBytes);
        queue.take(generation);
        assert_eq!(lock(&queue.state).size, 0);
    }

    #[test]
    fn what_is_heavier_than_the_queue_passes_through_an_empty_one() {
        let (queue, generation) = opened(limits(1, 1, 1));
        assert_eq!(queue.push("trace", 2, 0), Pushed::Taken);
        assert_ne!(queue.push("next", 2, 0), Pushed::Taken);
        assert_eq!(queue.take(generation), Some(vec!["trace"]));
    }

    #[test]
    fn a_batch_holds_whole_items_up_to_its_weight() {
        let (queue, generation) = opened(limits(1, 100, 4));
        for (item, count) in [("a", 2), ("b", 2), ("c", 1), ("big", 9), ("d", 1)] {
            assert_eq!(queue.push(item, count, 0), Pushed::Taken);
        }
        queue.close();
        let mut batches = Vec::new();
        while let Some(batch) = queue.take(generation) {
            batches.push(batch);
        }
        assert_eq!(batches, [vec!["a", "b"], vec!["c"], vec!["big"], vec!["d"]]);
        assert_ne!(queue.push("late", 1, 0), Pushed::Taken);
    }

    #[test]
    fn a_full_batch_does_not_wait_for_its_time() {
        let (queue, generation) = opened(limits(3_600_000, 100, 3));
        let queue = Arc::new(queue);
        let worker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(generation)
        });
        for n in 0..3 {
            queue.push(n, 1, 0);
        }
        assert_eq!(worker.join().unwrap(), Some(vec![0, 1, 2]));
    }

    #[test]
    fn a_single_item_is_taken_when_its_time_has_come() {
        let (queue, generation) = opened(limits(20, 100, 100));
        let queue = Arc::new(queue);
        let worker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(generation)
        });
        let pushed = Instant::now();
        queue.push(1, 1, 0);
        assert_eq!(worker.join().unwrap(), Some(vec![1]));
        assert!(pushed.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_two_threads() {
        let (queue, generation) = opened(limits(1, 1_000_000, 7));
        let queue = Arc::new(queue);
        let worker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || std::iter::from_fn(|| queue.take(generation)).flatten().collect::<Vec<_>>()
        });
        for n in 0..50_000 {
            assert_eq!(queue.push(n, 1 + n % 3, 0), Pushed::Taken);
        }
        queue.close();
        assert_eq!(worker.join().unwrap(), (0..50_000).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_worker_takes_over_what_waits_and_what_is_put_back() {
        let (queue, first) = opened(limits(3_600_000, 5, 2));
        for n in 0..5 {
            queue.push(n, 1, 0);
        }
        let batch = queue.take(first).unwrap();
        let second = queue.attach_worker(limits(1, 9, 9));
        assert_eq!(queue.take(first), None);
        queue.put_back(batch, |_| (1, 0));
        assert_eq!(queue.push(5, 1, 0), Pushed::Taken);
        assert_eq!(queue.take(second), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(queue.count(), 0);
    }

    #[test]
    fn a_worker_that_waits_learns_that_another_one_has_its_turn() {
        let (queue, first) = opened(limits(3_600_000, 5, 2));
        let queue = Arc::new(queue);
        let worker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(first)
        });
        queue.attach_worker(limits(1, 5, 2));
        assert_eq!(worker.join().unwrap(), None::<Vec<u8>>);
    }

    #[test]
    fn nothing_goes_into_a_queue_that_nobody_empties() {
        let queue = Queue::new(limits(1, 5, 5));
        assert_eq!(queue.push(1, 1, 0), Pushed::Closed);
        let generation = queue.attach_worker(limits(1, 5, 5));
        assert_eq!(queue.push(1, 1, 0), Pushed::Taken);
        queue.close();
        assert_eq!(queue.push(2, 1, 0), Pushed::Closed);
        assert_eq!((queue.take(generation), queue.take(generation)), (Some(vec![1]), None));
    }
}

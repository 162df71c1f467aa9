//! A bounded queue between the request thread and one worker.
//!
//! The queue outlives its worker. After a settings change the new worker continues with the items
//! already queued.
//!
//! Waking a sleeping thread costs more than answering a request. A push therefore wakes the worker
//! in only two cases: the queue was empty, or a batch is full. Otherwise the worker sleeps until
//! the batch is due.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::BatchLimits;
use crate::sync::lock;

/// Memory limit of a queue. The limit in items is not enough, because clients decide the size of
/// the headers that are recorded in spans.
pub(super) const MAX_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Shortest time for the worker to take a batch that is due, see [`Queue::take_overdue`].
const MIN_PATIENCE: Duration = Duration::from_secs(1);

/// Items that wait for one worker. Limits count spans or lines, see [`Item::count`].
pub struct Queue<T> {
    state: Mutex<QueueState<T>>,
    wake: Condvar,
    /// Wakes the thread in [`Queue::take_overdue`].
    pressure: Condvar,
}

/// A type of item that can be queued.
pub trait Item {
    /// Returns the number of spans of a trace, or 1 for a log line.
    fn count(&self) -> usize;

    /// Returns the approximate size in memory, in bytes.
    fn size(&self) -> usize;

    /// Returns the time of the item, in milliseconds since 1970.
    fn time(&self) -> u64;
}

/// Result of a push. An item that is not queued is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PushResult {
    /// The item was queued.
    Queued,
    /// The queue had reached its limit of spans or lines.
    QueueFull,
    /// The queue had reached its memory limit.
    MemoryFull,
    /// The queue is closed, because the backend is off or the program ends.
    Closed,
}

/// Number of a worker. Only the worker that was attached last may take batches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Generation(u64);

struct QueueState<T> {
    limits: BatchLimits,
    generation: Generation,
    /// Items, with count and size.
    items: VecDeque<(T, usize, usize)>,
    count: usize,
    size: usize,
    /// Time when the queued batch is due. `None` while the queue is empty.
    due: Option<Instant>,
    /// True once the worker has been woken for the current batch.
    woken: bool,
    /// True while the worker waits for a batch.
    worker_waits: bool,
    /// True while the saver waits, and has not been woken.
    saver_waits: bool,
    closed: bool,
}

impl<T> Queue<T> {
    /// Creates an empty queue, closed until a worker is attached.
    pub fn new(limits: BatchLimits) -> Self {
        let (items, generation) = (VecDeque::new(), Generation(0));
        let state = QueueState {
            limits,
            generation,
            items,
            count: 0,
            size: 0,
            due: None,
            woken: false,
            worker_waits: false,
            saver_waits: false,
            closed: true,
        };
        Self { state: Mutex::new(state), wake: Condvar::new(), pressure: Condvar::new() }
    }

    /// Opens the queue for a new worker and sets new limits. An earlier worker gets no more
    /// batches.
    pub fn attach_worker(&self, limits: BatchLimits) -> Generation {
        let mut state = lock(&self.state);
        state.limits = limits;
        state.generation.0 += 1;
        state.closed = false;
        // Queued items must not wait longer than the new delay.
        if let Some(due) = state.due {
            state.due = Some(due.min(Instant::now() + limits.delay));
        }
        self.wake.notify_all();
        self.pressure.notify_all();
        state.generation
    }

    /// Returns a batch to the front of the queue, for the next worker. The limits are ignored.
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

    /// Adds an item if it fits. An empty queue accepts an item that is larger than its limits.
    pub fn push(&self, item: T, count: usize, size: usize) -> PushResult {
        let mut state = lock(&self.state);
        if state.closed {
            return PushResult::Closed;
        }
        if state.count + count > state.limits.queue && state.count > 0 {
            return PushResult::QueueFull;
        }
        if state.size + size > MAX_QUEUE_BYTES && state.count > 0 {
            return PushResult::MemoryFull;
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
        let is_pressing = state.saver_waits && !state.worker_waits && state.is_half_full();
        state.saver_waits &= !is_pressing;
        drop(state);
        if is_pressing {
            self.pressure.notify_one();
        }
        if wake {
            self.wake.notify_one();
        }
        PushResult::Queued
    }

    /// Waits until a batch is full or due, and returns it. A batch has at least one item, and more
    /// only up to the batch limit. Returns `None` if the queue is closed and empty, or if another
    /// worker has been attached.
    pub fn take(&self, generation: Generation) -> Option<Vec<T>> {
        self.take_until(generation, None)
    }

    /// The same, but returns an empty batch if no batch is due until this time.
    pub fn take_until(&self, generation: Generation, until: Option<Instant>) -> Option<Vec<T>> {
        let mut state = lock(&self.state);
        loop {
            state.worker_waits = false;
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
            if until.is_some_and(|until| until <= now) {
                return Some(Vec::new());
            }
            state.worker_waits = true;
            state = match [state.due, until].into_iter().flatten().min() {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits until there is a batch that the worker is too busy for, and returns it: the batch is
    /// overdue by another delay, or the queue is half full. Returns `None` if the queue
    /// is closed, or if another worker has been attached.
    pub fn take_overdue(&self, generation: Generation) -> Option<Vec<T>> {
        let mut state = lock(&self.state);
        loop {
            if state.generation != generation || state.closed {
                return None;
            }
            let now = Instant::now();
            let patience = state.limits.delay.max(MIN_PATIENCE);
            let overdue = state.due.map(|due| due + patience);
            let is_left = overdue.is_some_and(|overdue| overdue <= now) || state.is_half_full();
            if is_left && !state.worker_waits {
                return Some(Self::take_batch(&mut state));
            }
            // An item that is pushed from now on cannot be overdue before. A full queue wakes the thread.
            let left = overdue.filter(|overdue| *overdue > now).map_or(patience, |overdue| overdue - now);
            state.saver_waits = true;
            state = self.pressure.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.saver_waits = false;
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
        // The remaining items are newer than the removed ones, so the old due time is early enough.
        state.due = state.due.filter(|_| !state.items.is_empty());
        state.woken = false;
        batch
    }

    /// Closes the queue for new items. The worker can still take the queued ones, without waiting
    /// for a full batch.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_all();
        self.pressure.notify_all();
    }

    /// Returns the number of queued spans or lines.
    pub fn count(&self) -> usize {
        lock(&self.state).count
    }

    /// Returns the time until the queued batch is due, or `None` if the queue is empty.
    pub fn due_in(&self) -> Option<Duration> {
        lock(&self.state).due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Returns the current limits.
    pub fn limits(&self) -> BatchLimits {
        lock(&self.state).limits
    }
}

impl<T> QueueState<T> {
    fn is_half_full(&self) -> bool {
        self.count > self.limits.queue / 2 || self.size > MAX_QUEUE_BYTES / 2
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
        assert_eq!(queue.push("a", 3, 0), PushResult::Queued);
        assert_ne!(queue.push("b", 3, 0), PushResult::Queued);
        assert_eq!(queue.push("c", 2, 0), PushResult::Queued);
        assert_eq!(queue.count(), 5);
        assert_eq!(queue.take(generation), Some(vec!["a", "c"]));
        assert_eq!(queue.count(), 0);
    }

    #[test]
    fn memory_is_bounded_whatever_the_limits_say() {
        let (queue, generation) = opened(limits(1, 1000, 2));
        for (item, pushed) in [("a", PushResult::Queued), ("b", PushResult::Queued), ("c", PushResult::MemoryFull)] {
            assert_eq!(queue.push(item, 1, MAX_QUEUE_BYTES / 2), pushed);
        }
        assert_eq!(queue.take(generation), Some(vec!["a", "b"]));
        assert_eq!(queue.push("one that is larger than all", 1, 2 * MAX_QUEUE_BYTES), PushResult::Queued);
        assert_eq!(queue.push("d", 1, 0), PushResult::MemoryFull);
        assert_eq!(queue.take(generation), Some(vec!["one that is larger than all"]));
        queue.put_back(vec!["e"], |_| (1, MAX_QUEUE_BYTES));
        assert_eq!(queue.push("f", 1, 1), PushResult::MemoryFull);
        queue.take(generation);
        assert_eq!(lock(&queue.state).size, 0);
    }

    #[test]
    fn what_is_heavier_than_the_queue_passes_through_an_empty_one() {
        let (queue, generation) = opened(limits(1, 1, 1));
        assert_eq!(queue.push("trace", 2, 0), PushResult::Queued);
        assert_ne!(queue.push("next", 2, 0), PushResult::Queued);
        assert_eq!(queue.take(generation), Some(vec!["trace"]));
    }

    #[test]
    fn a_batch_holds_whole_items_up_to_its_weight() {
        let (queue, generation) = opened(limits(1, 100, 4));
        for (item, count) in [("a", 2), ("b", 2), ("c", 1), ("big", 9), ("d", 1)] {
            assert_eq!(queue.push(item, count, 0), PushResult::Queued);
        }
        queue.close();
        let mut batches = Vec::new();
        while let Some(batch) = queue.take(generation) {
            batches.push(batch);
        }
        assert_eq!(batches, [vec!["a", "b"], vec!["c"], vec!["big"], vec!["d"]]);
        assert_ne!(queue.push("late", 1, 0), PushResult::Queued);
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
            assert_eq!(queue.push(n, 1 + n % 3, 0), PushResult::Queued);
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
        assert_eq!(queue.push(5, 1, 0), PushResult::Queued);
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
        assert_eq!(queue.push(1, 1, 0), PushResult::Closed);
        let generation = queue.attach_worker(limits(1, 5, 5));
        assert_eq!(queue.push(1, 1, 0), PushResult::Queued);
        queue.close();
        assert_eq!(queue.push(2, 1, 0), PushResult::Closed);
        assert_eq!((queue.take(generation), queue.take(generation)), (Some(vec![1]), None));
    }

    #[test]
    fn only_what_the_worker_has_left_too_long_is_overdue() {
        let limits = limits(60_000, 8, 2);
        let (queue, generation) = opened(limits);
        let queue = Arc::new(queue);
        let saver = thread::spawn({
            let queue = Arc::clone(&queue);
            move || (queue.take_overdue(generation), queue.take_overdue(generation))
        });
        for item in 0..3 {
            assert_eq!(queue.push(item, 1, 0), PushResult::Queued);
        }
        assert_eq!(
            queue.take_until(generation, Some(Instant::now())),
            Some(vec![0, 1]),
            "a full batch is the worker's"
        );
        assert_eq!(queue.take_until(generation, Some(Instant::now())), Some(vec![]), "nothing is due");
        for item in 3..7 {
            assert_eq!(queue.push(item, 1, 0), PushResult::Queued);
        }
        // The queue is more than half full now. The saver takes one batch, and nothing else.
        while queue.count() == 5 {
            thread::yield_now();
        }
        queue.close();
        assert_eq!(saver.join().unwrap(), (Some(vec![2, 3]), None));
        assert_eq!(queue.take(generation), Some(vec![4, 5]));
    }
}

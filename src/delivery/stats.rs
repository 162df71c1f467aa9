//! Delivery counts of one backend, and the log of its outages.
//!
//! An outage is logged twice: when it begins and when it ends. It is not logged for each batch,
//! because hundreds of copies of the same line would hide the rest of the log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::backend::Problem;
use super::deliveries::{Deliveries, SharedSize};
use super::queue::MAX_QUEUE_BYTES;
use crate::sync::lock;
use crate::text::Message;

/// Delivery counts of one backend, and its current outage.
pub struct DeliveryStats {
    /// Last deliveries.
    pub deliveries: Deliveries,
    /// Name of the backend.
    pub name: &'static str,
    /// Unit of the counts: `spans` or `lines`.
    pub unit: &'static str,
    state: Mutex<StatsState>,
}

/// Counts at one moment, in the unit of the backend except for `trimmed`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Items taken from the queue whose result is not known yet.
    pub in_flight: u64,
    /// Items accepted by the destination.
    pub delivered: u64,
    /// Items rejected by the destination.
    pub refused: u64,
    /// Items answered with success, but not by the expected service.
    pub unconfirmed: u64,
    /// Items stored on disk. What becomes of them is not counted here.
    pub stored: u64,
    /// Items lost because the queue was full, all retries failed, or the program ended.
    pub dropped: u64,
    /// Items not sampled.
    pub sampled_out: u64,
    /// Items not sent because the backend is off or waiting.
    pub not_sent: u64,
    /// Documents sent without some of their content, because they were too large.
    pub trimmed: u64,
}

/// The last problem and its time.
#[derive(Clone, Debug)]
pub struct LastError {
    /// The problem, its place, and the next step.
    pub message: Message,
    /// Time of the problem.
    pub at: DateTime<Utc>,
}

#[derive(Default)]
struct StatsState {
    totals: Totals,
    queue_is_full: bool,
    is_closed: bool,
    last_error: Option<LastError>,
    /// Time of the first problem after the last success.
    failing_since: Option<DateTime<Utc>>,
    /// Start of the last logged outage. `None` after its recovery was logged.
    outage: Option<Instant>,
    /// Number of items lost since the last logged recovery.
    lost: u64,
    /// Time and episode in which each kind of problem was last logged.
    reported: HashMap<String, (Instant, u64)>,
    /// Number of recoveries so far.
    episode: u64,
}

/// Shortest time between two log lines about the same kind of problem in different episodes.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of kinds in [`StatsState::reported`].
const MAX_KINDS: usize = 64;

impl DeliveryStats {
    /// Creates counts of zero.
    pub(super) fn new(name: &'static str, unit: &'static str, kept: SharedSize) -> Self {
        Self { deliveries: Deliveries::new(kept), name, unit, state: Mutex::default() }
    }

    /// Returns the current counts.
    pub fn totals(&self) -> Totals {
        lock(&self.state).totals
    }

    /// Returns the last problem.
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.state).last_error.clone()
    }

    /// Returns the time of the first problem after the last success.
    pub fn failing_since(&self) -> Option<DateTime<Utc>> {
        lock(&self.state).failing_since
    }

    pub(super) fn sampled_out(&self, count: usize) {
        lock(&self.state).totals.sampled_out += count as u64;
    }

    pub(super) fn not_sent(&self, count: usize) {
        lock(&self.state).totals.not_sent += count as u64;
    }

    /// Counts items that did not fit into the queue. `capacity` is the limit that was reached, or
    /// `None` for [`MAX_QUEUE_BYTES`]. The request thread calls this function, so only the first
    /// call writes a log line.
    pub(super) fn queue_was_full(&self, count: usize, capacity: Option<usize>) {
        let mut state = lock(&self.state);
        state.totals.dropped += count as u64;
        state.lost += count as u64;
        if std::mem::replace(&mut state.queue_is_full, true) {
            return;
        }
        drop(state);
        let (unit, megabytes) = (self.unit, MAX_QUEUE_BYTES / 1024 / 1024);
        let (limit, next) = match capacity {
            Some(capacity) => (format!("{capacity} {unit}"), "solve the problem above, or raise max_queue_size"),
            None => (
                format!("{megabytes} MiB of {unit}"),
                "solve the problem above, or find the client that sends such large requests",
            ),
        };
        let what =
            format!("queue full ({limit}): new {unit} are dropped and counted until the destination accepts more");
        self.problem(lock(&self.state), 0, &Problem::new("queue full", Message::new(what).next(next)));
    }

    pub(super) fn taken(&self, count: usize) {
        lock(&self.state).totals.in_flight += count as u64;
    }

    /// Subtracts items that return to the queue for the next worker.
    pub(super) fn put_back(&self, count: usize) {
        lock(&self.state).settle(count);
    }

    /// Logs that the last worker of a backend that was switched off has ended. `before` has the counts
    /// before that.
    pub(super) fn switched_off(&self, before: &Totals) {
        let (unit, now) = (self.unit, self.totals());
        let stored = match now.stored - before.stored {
            0 => String::new(),
            stored => format!("; {stored} queued {unit} are stored, and will be sent when it is on again"),
        };
        match now.lost().saturating_sub(before.lost()) {
            0 if stored.is_empty() => log::info!(target: self.name, "off; all queued {unit} were sent"),
            0 => log::info!(target: self.name, "off{stored}"),
            lost => {
                let why = self.last_error().map_or_else(String::new, |error| format!(": {}", error.message));
                log::warn!(target: self.name, "off{stored}; {lost} queued {unit} could not be sent, and are lost{why}");
            }
        }
    }

    /// Counts accepted items, and logs the end of an outage.
    pub(super) fn delivered(&self, count: usize) {
        let mut state = lock(&self.state);
        state.totals.delivered += state.settle(count);
        state.queue_is_full = false;
        if state.failing_since.take().is_some() {
            state.episode += 1;
        }
        let Some(since) = state.outage.take() else { return };
        let (lost, unit) = (std::mem::take(&mut state.lost), self.unit);
        drop(state);
        log::info!(target: self.name, "delivering again after {:.1?}; {lost} {unit} were lost meanwhile", since.elapsed());
    }

    /// Corrects the counts: items reported as delivered were lost.
    pub(super) fn lost_after_all(&self, count: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        if !state.is_closed {
            state.totals.delivered -= count as u64;
            state.totals.dropped += count as u64;
            self.problem(state, count, problem);
        }
    }

    /// Counts a payload of which `rejected` items were rejected and the rest was accepted.
    pub(super) fn partly(&self, count: usize, rejected: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        state.totals.delivered += state.settle(count - rejected);
        state.totals.refused += state.settle(rejected);
        self.problem(state, rejected, problem);
    }

    pub(super) fn refused(&self, count: usize, problem: &Problem) {
        self.partly(count, count, problem);
    }

    /// Counts items that were answered with success, but not by the expected service.
    pub(super) fn unconfirmed(&self, count: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        state.totals.unconfirmed += state.settle(count);
        self.problem(state, count, problem);
    }

    pub(super) fn gave_up(&self, count: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        state.totals.dropped += state.settle(count);
        self.problem(state, count, problem);
    }

    /// Counts items that were stored on disk because of this problem.
    pub(super) fn stored(&self, count: usize, problem: Option<&Problem>) {
        let mut state = lock(&self.state);
        state.totals.stored += state.settle(count);
        if let Some(problem) = problem {
            self.problem(state, 0, problem);
        }
    }

    /// Corrects the counts: items counted as stored are not stored any more, and their result is known.
    /// Returns false if it is too late for that.
    pub(super) fn withdrawn(&self, count: usize) -> bool {
        let mut state = lock(&self.state);
        if !state.is_closed {
            state.totals.stored -= count as u64;
            state.totals.in_flight += count as u64;
        }
        !state.is_closed
    }

    /// Records a failed attempt that will be retried.
    pub(super) fn will_retry(&self, problem: &Problem) {
        self.problem(lock(&self.state), 0, problem);
    }

    /// Records a warning that came with a success.
    pub(super) fn warned(&self, problem: &Problem) {
        let mut state = lock(&self.state);
        let is_new = state.remember(problem);
        self.unlock_and_log(state, is_new.then_some(problem));
    }

    /// Counts queued items and those in flight as dropped, and logs a warning. Called when the
    /// program ends.
    pub(super) fn close(&self, waiting: usize) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let stuck = waiting as u64 + std::mem::take(&mut state.totals.in_flight);
        state.totals.dropped += stuck;
        let why = state.last_error.as_ref().map(|error| error.message.to_string());
        drop(state);
        if stuck > 0 {
            let (unit, why) = (self.unit, why.unwrap_or_else(|| "no response yet".to_owned()));
            log::warn!(target: self.name, "{stuck} {unit} were not sent before the program ended, and are lost: {why}");
        }
    }

    /// Counts a document that was sent without some of its content.
    pub(super) fn trimmed(&self, problem: &Problem) {
        lock(&self.state).totals.trimmed += 1;
        self.warned(problem);
    }

    fn problem(&self, mut state: MutexGuard<'_, StatsState>, lost: usize, problem: &Problem) {
        state.failing_since.get_or_insert_with(Utc::now);
        state.lost += lost as u64;
        let is_new = state.remember(problem);
        if is_new {
            state.outage.get_or_insert_with(Instant::now);
        }
        self.unlock_and_log(state, is_new.then_some(problem));
    }

    /// Logs a new problem. Nothing is logged under the lock, because the request thread takes the
    /// same one.
    fn unlock_and_log(&self, state: MutexGuard<'_, StatsState>, problem: Option<&Problem>) {
        drop(state);
        if let Some(problem) = problem {
            log::warn!(target: self.name, "{}", problem.message);
        }
    }
}

impl Totals {
    /// Returns the number of items lost: refused, dropped, or accepted by no known service.
    fn lost(&self) -> u64 {
        self.refused + self.unconfirmed + self.dropped
    }
}

impl StatsState {
    /// Remembers the problem as the last one. Returns false if one of the same kind was logged in
    /// this episode or within [`REPEAT_INTERVAL`].
    fn remember(&mut self, problem: &Problem) -> bool {
        self.last_error = Some(LastError { message: problem.message.clone(), at: Utc::now() });
        let is_known = |(at, episode): &(Instant, u64)| *episode == self.episode || at.elapsed() < REPEAT_INTERVAL;
        if self.reported.get(&problem.kind).is_some_and(is_known) {
            return false;
        }
        if self.reported.len() == MAX_KINDS {
            self.reported.clear();
        }
        self.reported.insert(problem.kind.clone(), (Instant::now(), self.episode));
        true
    }

    /// Subtracts items from those in flight. Returns the number to count: 0 after
    /// [`DeliveryStats::close`], because `close` has already counted these items as dropped.
    fn settle(&mut self, count: usize) -> u64 {
        if self.is_closed {
            return 0;
        }
        self.totals.in_flight = self.totals.in_flight.saturating_sub(count as u64);
        count as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Problem {
        Problem::new(kind, format!("{kind} happened"))
    }

    #[test]
    fn every_span_taken_is_settled_once() {
        let stats = DeliveryStats::new("test", "spans", SharedSize::default());
        stats.taken(10);
        assert_eq!(stats.totals().in_flight, 10);
        stats.delivered(4);
        stats.refused(3, &problem("401"));
        stats.gave_up(2, &problem("503"));
        stats.unconfirmed(1, &problem("web page"));
        stats.queue_was_full(2, Some(5));
        let expected = Totals { delivered: 4, refused: 3, unconfirmed: 1, dropped: 4, ..Totals::default() };
        assert_eq!(stats.totals(), expected);
    }

    #[test]
    fn a_destination_that_comes_and_goes_is_told_once_each_way() {
        let stats = DeliveryStats::new("test", "spans", SharedSize::default());
        let trouble_is_told = || lock(&stats.state).outage.is_some();
        stats.will_retry(&problem("503"));
        assert!(trouble_is_told());
        stats.delivered(0);
        assert!(!trouble_is_told());
        stats.will_retry(&problem("503"));
        assert!(!trouble_is_told());
        stats.taken(3);
        stats.partly(3, 1, &problem("partial success"));
        assert!(trouble_is_told());
        assert_eq!(stats.totals(), Totals { delivered: 2, refused: 1, ..Totals::default() });
    }

    #[test]
    fn a_kind_of_problem_is_told_once_and_remembered_as_the_last() {
        let stats = DeliveryStats::new("test", "spans", SharedSize::default());
        for _ in 0..3 {
            stats.will_retry(&problem("503"));
            stats.will_retry(&problem("timeout"));
        }
        assert_eq!(lock(&stats.state).reported.len(), 2);
        assert_eq!(stats.last_error().unwrap().message.to_string(), "timeout happened");
        for n in 0..1000 {
            stats.will_retry(&problem(&n.to_string()));
        }
        assert!(lock(&stats.state).reported.len() <= MAX_KINDS);
    }
}

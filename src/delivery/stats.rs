//! What became of everything that was handed to one backend: counts, and the trouble it is in.
//!
//! Trouble is reported once, when it begins, and once more when it is over; not once per batch. A learner needs the
//! sentence, not four hundred copies of it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::backend::Problem;
use super::deliveries::Deliveries;
use super::queue::MAX_QUEUE_BYTES;
use crate::sync::lock;
use crate::text::Message;

/// The delivery counts of one backend, and the trouble it is in.
pub struct DeliveryStats {
    /// The last deliveries.
    pub deliveries: Deliveries,
    /// The name of the backend.
    pub name: &'static str,
    /// What is counted: `spans` or `lines`.
    pub unit: &'static str,
    state: Mutex<StatsState>,
}

/// The counts at one moment, all in the backend's unit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Taken from the queue, and not yet settled.
    pub in_flight: u64,
    /// Accepted by the other side.
    pub delivered: u64,
    /// Answered with a refusal that no retry would change.
    pub refused: u64,
    /// Given up: the queue was full, the retries used up, or the program ended.
    pub dropped: u64,
    /// Not sent because the sampler said so.
    pub sampled_out: u64,
    /// Not sent because the backend is off or waiting.
    pub not_sent: u64,
    /// Documents that were sent without a part of theirs, to fit.
    pub trimmed: u64,
}

/// The last problem, and when.
#[derive(Clone, Debug)]
pub struct LastError {
    /// What, where, what next.
    pub message: Message,
    /// When.
    pub at: DateTime<Utc>,
}

#[derive(Default)]
struct StatsState {
    totals: Totals,
    queue_is_full: bool,
    is_closed: bool,
    last_error: Option<LastError>,
    /// When the first problem came after the last success.
    failing_since: Option<DateTime<Utc>>,
    /// When the last reported outage began. `None` after its recovery was reported.
    outage: Option<Instant>,
    /// How much was lost since the last recovery.
    lost: u64,
    /// When each kind of problem was last reported, and in which episode.
    reported: HashMap<String, (Instant, u64)>,
    /// How often trouble has ended so far.
    episode: u64,
}

/// A kind of problem that comes back this soon after it was reported is not reported again.
const QUIET: Duration = Duration::from_secs(60);
/// Kinds of problems that are remembered as reported.
const MAX_KINDS: usize = 64;

impl DeliveryStats {
    /// Counts of nothing yet.
    #[must_use]
    pub fn new(name: &'static str, unit: &'static str) -> Self {
        Self { deliveries: Deliveries::default(), name, unit, state: Mutex::default() }
    }

    /// The counts now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        lock(&self.state).totals
    }

    /// The last problem.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.state).last_error.clone()
    }

    /// Since when nothing gets through.
    #[must_use]
    pub fn failing_since(&self) -> Option<DateTime<Utc>> {
        lock(&self.state).failing_since
    }

    pub(super) fn sampled_out(&self, count: usize) {
        lock(&self.state).totals.sampled_out += count as u64;
    }

    pub(super) fn not_sent(&self, count: usize) {
        lock(&self.state).totals.not_sent += count as u64;
    }

    /// Counts what the queue had no room for. `capacity` is the limit that it reached, `None` if that was
    /// [`MAX_QUEUE_BYTES`]. The request thread calls this, so only the first time does more than count.
    pub(super) fn queue_was_full(&self, count: usize, capacity: Option<usize>) {
        let mut state = lock(&self.state);
        state.totals.dropped += count as u64;
        if !std::mem::replace(&mut state.queue_is_full, true) {
            let (unit, megabytes) = (self.unit, MAX_QUEUE_BYTES / 1024 / 1024);
            let (queue, next) = match capacity {
                Some(capacity) => {
                    (format!("the queue of {capacity} {unit}"), "see the problem above, or raise max_queue_size")
                }
                None => (
                    format!("the queue of {unit} ({megabytes} MiB)"),
                    "see the problem above, or who sends requests that large",
                ),
            };
            let what = format!("{queue} is full: new ones are dropped and counted until the destination keeps up");
            self.problem(&mut state, 0, &Problem::new("queue full", Message::new(what).next(next)));
        }
        state.lost += count as u64;
    }

    pub(super) fn taken(&self, count: usize) {
        lock(&self.state).totals.in_flight += count as u64;
    }

    /// Counts what goes back into the queue, for the next worker.
    pub(super) fn put_back(&self, count: usize) {
        lock(&self.state).settle(count);
    }

    /// How much did not arrive and never will, so far.
    pub(super) fn lost(&self) -> u64 {
        let Totals { refused, dropped, .. } = self.totals();
        refused + dropped
    }

    /// Reports that the backend, which was switched off when `lost_before` had been lost, has sent what it could.
    pub(super) fn switched_off(&self, lost_before: u64) {
        let unit = self.unit;
        match self.lost().saturating_sub(lost_before) {
            0 => log::info!(target: self.name, "off; all {unit} that waited have left"),
            lost => {
                let why = self.last_error().map_or_else(String::new, |error| format!(": {}", error.message));
                log::warn!(target: self.name, "off; {lost} {unit} that waited could not be sent any more, and are lost{why}");
            }
        }
    }

    /// Counts a payload of which all arrived, and reports the end of an outage.
    pub(super) fn delivered(&self, count: usize) {
        let mut state = lock(&self.state);
        state.totals.delivered += state.settle(count);
        state.queue_is_full = false;
        if let Some(since) = state.outage.take() {
            let (lost, unit) = (std::mem::take(&mut state.lost), self.unit);
            log::info!(target: self.name, "delivering again after {:.1?}; {lost} {unit} were lost meanwhile", since.elapsed());
        }
        if state.failing_since.take().is_some() {
            state.episode += 1;
        }
    }

    /// Corrects the counts: items reported as delivered were lost after all.
    pub(super) fn lost_after_all(&self, count: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        if !state.is_closed {
            state.totals.delivered -= count as u64;
            state.totals.dropped += count as u64;
            self.problem(&mut state, count, problem);
        }
    }

    /// Counts a payload of which a part arrived, and the rest is refused for good.
    pub(super) fn partly(&self, count: usize, rejected: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        state.totals.delivered += state.settle(count - rejected);
        state.totals.refused += state.settle(rejected);
        self.problem(&mut state, rejected, problem);
    }

    pub(super) fn refused(&self, count: usize, problem: &Problem) {
        self.partly(count, count, problem);
    }

    pub(super) fn gave_up(&self, count: usize, problem: &Problem) {
        let mut state = lock(&self.state);
        state.totals.dropped += state.settle(count);
        self.problem(&mut state, count, problem);
    }

    /// Reports an attempt that failed, and that another will follow.
    pub(super) fn will_retry(&self, problem: &Problem) {
        self.problem(&mut lock(&self.state), 0, problem);
    }

    /// Reports what the other side has to say although it has accepted everything.
    pub(super) fn warned(&self, problem: &Problem) {
        self.report(&mut lock(&self.state), problem);
    }

    /// Counts what still waits, and what is not settled yet, as dropped, and reports it: the program ends.
    pub(super) fn close(&self, waiting: usize) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let stuck = waiting as u64 + std::mem::take(&mut state.totals.in_flight);
        state.totals.dropped += stuck;
        if stuck > 0 {
            let why = state.last_error.as_ref().map(|error| error.message.to_string());
            let (unit, why) = (self.unit, why.unwrap_or_else(|| "no answer has come yet".to_owned()));
            log::warn!(target: self.name, "{stuck} {unit} had not left when the program had to end, and are lost: {why}");
        }
    }

    /// Counts a document that was sent without a part of it.
    pub(super) fn trimmed(&self, problem: &Problem) {
        lock(&self.state).totals.trimmed += 1;
        self.warned(problem);
    }

    fn problem(&self, state: &mut StatsState, lost: usize, problem: &Problem) {
        state.failing_since.get_or_insert_with(Utc::now);
        state.lost += lost as u64;
        if self.report(state, problem) {
            state.outage.get_or_insert_with(Instant::now);
        }
    }

    /// Logs the problem, unless one of its kind was logged in this episode or a short while ago.
    fn report(&self, state: &mut StatsState, problem: &Problem) -> bool {
        state.last_error = Some(LastError { message: problem.message.clone(), at: Utc::now() });
        let is_known = |(at, episode): &(Instant, u64)| *episode == state.episode || at.elapsed() < QUIET;
        if state.reported.get(&problem.kind).is_some_and(is_known) {
            return false;
        }
        if state.reported.len() == MAX_KINDS {
            state.reported.clear();
        }
        state.reported.insert(problem.kind.clone(), (Instant::now(), state.episode));
        log::warn!(target: self.name, "{}", problem.message);
        true
    }
}

impl StatsState {
    /// Takes items out of those in flight. Returns how many are to be counted: none after [`DeliveryStats::close`], which
    /// has already counted them as dropped.
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
        let stats = DeliveryStats::new("test", "spans");
        stats.taken(10);
        assert_eq!(stats.totals().in_flight, 10);
        stats.delivered(4);
        stats.refused(3, &problem("401"));
        stats.gave_up(3, &problem("503"));
        stats.queue_was_full(2, Some(5));
        let expected = Totals { delivered: 4, refused: 3, dropped: 5, ..Totals::default() };
        assert_eq!(stats.totals(), expected);
    }

    #[test]
    fn a_destination_that_comes_and_goes_is_told_once_each_way() {
        let stats = DeliveryStats::new("test", "spans");
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
        let stats = DeliveryStats::new("test", "spans");
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

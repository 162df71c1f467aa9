//! What became of everything that was handed to one backend: counts, and the trouble it is in.
//!
//! Trouble is reported once, when it begins, and once more when it is over; not once per batch. A learner needs the
//! sentence, not four hundred copies of it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::backend::Problem;
use super::deliveries::Deliveries;
use super::queue::MAX_QUEUE_BYTES;
use crate::sync::lock;
use crate::text::Message;

/// The delivery counts of one backend, and the trouble it is in.
pub struct DeliveryStats {
    /// The last deliveries.
    pub deliveries: Deliveries,
    name: &'static str,
    unit: &'static str,
    counts: Counts,
    queue_is_full: AtomicBool,
    /// Lost to a full queue since the last success.
    lost_unsaid: AtomicU64,
    closed: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// How much met which end. All in the backend's unit: spans, mostly.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    sampled_out: AtomicU64,
    not_sent: AtomicU64,
    trimmed: AtomicU64,
    in_flight: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
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
    /// Documents that went without a part of theirs, to fit.
    pub trimmed: u64,
    /// Taken from the queue, and not yet answered.
    pub in_flight: u64,
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
struct Trouble {
    last: Option<LastError>,
    /// When the first problem came after the last success.
    failing_since: Option<DateTime<Utc>>,
    /// When the trouble began that was reported last; `None` once its end was reported too.
    since: Option<Instant>,
    lost: u64,
    reported: HashMap<String, Reported>,
    /// How often trouble has ended so far.
    episode: u64,
}

/// When a kind of problem was last reported, and in which trouble.
struct Reported {
    at: Instant,
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
        Self {
            deliveries: Deliveries::default(),
            name,
            unit,
            counts: Counts::default(),
            queue_is_full: AtomicBool::new(false),
            lost_unsaid: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// The name of the backend.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What is counted here: `spans`.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        self.unit
    }

    /// The counts now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            delivered: read(&self.counts.delivered),
            refused: read(&self.counts.refused),
            dropped: read(&self.counts.dropped),
            sampled_out: read(&self.counts.sampled_out),
            not_sent: read(&self.counts.not_sent),
            trimmed: read(&self.counts.trimmed),
            in_flight: read(&self.counts.in_flight),
        }
    }

    /// The last problem.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.trouble).last.clone()
    }

    /// Since when nothing gets through.
    #[must_use]
    pub fn failing_since(&self) -> Option<DateTime<Utc>> {
        lock(&self.trouble).failing_since
    }

    pub(super) fn sampled_out(&self, count: usize) {
        add(&self.counts.sampled_out, count);
    }

    pub(super) fn not_sent(&self, count: usize) {
        add(&self.counts.not_sent, count);
    }

    /// The queue had no room for more than `capacity`, or, if there is none, for more than [`MAX_QUEUE_BYTES`]. Called by the
    /// request thread, so only the first time does more than count.
    pub(super) fn queue_was_full(&self, count: usize, capacity: Option<usize>) {
        add(&self.counts.dropped, count);
        if !self.queue_is_full.swap(true, Ordering::Relaxed) {
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
            self.problem(0, &Problem::new("queue full", Message::new(what).next(next)));
        }
        self.lost_unsaid.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, count: usize) {
        add(&self.counts.in_flight, count);
    }

    /// It goes back into the queue, for the next worker.
    pub(super) fn put_back(&self, count: usize) {
        let _guard = lock(&self.trouble);
        if !self.closed.load(Ordering::Acquire) {
            self.counts.in_flight.fetch_sub(count as u64, Ordering::Relaxed);
        }
    }

    /// How much did not arrive and never will, so far.
    pub(super) fn lost(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed) + self.counts.dropped.load(Ordering::Relaxed)
    }

    /// The backend was switched off when `lost_before` had been lost, and has sent what it could.
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

    /// All of a payload arrived. Says so if trouble was reported before.
    pub(super) fn delivered(&self, count: usize) {
        self.settled(&self.counts.delivered, count);
        self.queue_is_full.store(false, Ordering::Relaxed);
        let mut trouble = lock(&self.trouble);
        if let Some(since) = trouble.since.take() {
            let lost = std::mem::take(&mut trouble.lost) + self.lost_unsaid.swap(0, Ordering::Relaxed);
            let unit = self.unit;
            log::info!(target: self.name, "delivering again after {:.1?}; {lost} {unit} were lost meanwhile", since.elapsed());
        }
        if trouble.failing_since.take().is_some() {
            trouble.episode += 1;
        }
    }

    /// What was taken for delivered turned out not to be.
    pub(super) fn lost_after_all(&self, count: usize, problem: &Problem) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.counts.delivered.fetch_sub(count as u64, Ordering::Relaxed);
        add(&self.counts.dropped, count);
        self.problem(count, problem);
    }

    /// A part of a payload arrived, the rest is refused for good.
    pub(super) fn partly(&self, count: usize, rejected: usize, problem: &Problem) {
        self.settled(&self.counts.delivered, count - rejected);
        self.refused(rejected, problem);
    }

    pub(super) fn refused(&self, count: usize, problem: &Problem) {
        self.settled(&self.counts.refused, count);
        self.problem(count, problem);
    }

    pub(super) fn gave_up(&self, count: usize, problem: &Problem) {
        self.settled(&self.counts.dropped, count);
        self.problem(count, problem);
    }

    /// A try failed, and another will follow.
    pub(super) fn will_retry(&self, problem: &Problem) {
        self.problem(0, problem);
    }

    /// The other side has taken everything, but has something to say.
    pub(super) fn warned(&self, problem: &Problem) {
        let mut trouble = lock(&self.trouble);
        trouble.last = Some(LastError { message: problem.message.clone(), at: Utc::now() });
        self.tell(&mut trouble, problem);
    }

    /// The program ends. What still waits, and what was not answered yet, is dropped, and that is said.
    pub(super) fn close(&self, waiting: usize) {
        let guard = lock(&self.trouble);
        self.closed.store(true, Ordering::Release);
        let stuck = waiting + self.counts.in_flight.swap(0, Ordering::AcqRel) as usize;
        drop(guard);
        if stuck > 0 {
            add(&self.counts.dropped, stuck);
            let why = self
                .last_error()
                .map_or_else(|| "no answer has come yet".to_owned(), |error| error.message.to_string());
            let unit = self.unit;
            log::warn!(target: self.name, "{stuck} {unit} had not left when the program had to end, and are lost: {why}");
        }
    }

    /// Something had to be left out of what was sent.
    pub(super) fn trimmed(&self, problem: &Problem) {
        add(&self.counts.trimmed, 1);
        self.warned(problem);
    }

    /// Does nothing after `close`, which has already counted these items as dropped.
    fn settled(&self, end: &AtomicU64, count: usize) {
        let _guard = lock(&self.trouble);
        if !self.closed.load(Ordering::Acquire) {
            add(end, count);
            self.counts.in_flight.fetch_sub(count as u64, Ordering::Relaxed);
        }
    }

    fn problem(&self, lost: usize, problem: &Problem) {
        let mut trouble = lock(&self.trouble);
        trouble.last = Some(LastError { message: problem.message.clone(), at: Utc::now() });
        trouble.failing_since.get_or_insert_with(Utc::now);
        trouble.lost += lost as u64;
        if self.tell(&mut trouble, problem) {
            trouble.since.get_or_insert_with(Instant::now);
        }
    }

    /// Logs the problem, unless one of its kind was logged in this trouble or a short while ago.
    fn tell(&self, trouble: &mut Trouble, problem: &Problem) -> bool {
        let episode = trouble.episode;
        let reported = trouble.reported.get(&problem.kind);
        if reported.is_some_and(|reported| reported.episode == episode || reported.at.elapsed() < QUIET) {
            return false;
        }
        if trouble.reported.len() == MAX_KINDS {
            trouble.reported.clear();
        }
        trouble.reported.insert(problem.kind.clone(), Reported { at: Instant::now(), episode });
        log::warn!(target: self.name, "{}", problem.message);
        true
    }
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
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
        let trouble_is_told = || lock(&stats.trouble).since.is_some();
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
        assert_eq!(lock(&stats.trouble).reported.len(), 2);
        assert_eq!(stats.last_error().unwrap().message.to_string(), "timeout happened");
        for n in 0..1000 {
            stats.will_retry(&problem(&n.to_string()));
        }
        assert!(lock(&stats.trouble).reported.len() <= MAX_KINDS);
    }
}

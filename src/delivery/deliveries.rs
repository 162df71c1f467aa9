//! The last deliveries of one backend: the bytes, the calls that carried them, and what came of it. Bounded in number and
//! in bytes; the oldest makes room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::backend::{Outcome, Payload, Problem};
use crate::sync::lock;
use crate::text::Message;
use crate::wire::recorded::RecordedCall;

/// A bounded list of deliveries.
#[derive(Default)]
pub struct Deliveries(Mutex<DeliveryLog>);

/// One payload on its way, or at its end.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Counted from 1 since the start.
    pub number: u64,
    /// The bytes.
    pub payload: Arc<Payload>,
    /// When the first try began.
    pub began: DateTime<Utc>,
    /// From the beginning of the first try to the end of the last one.
    pub took: Duration,
    /// How many tries there were.
    pub tries: u32,
    /// The calls of the last try, without secrets.
    pub exchanges: Vec<RecordedCall>,
    /// Where it stands.
    pub end: End,
    /// What went wrong, and what to do about it.
    pub message: Option<Message>,
    first_try: Instant,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// A try is going on.
    Sending,
    /// A try has failed, and there will be another.
    Waiting,
    /// All of it arrived.
    Delivered,
    /// It arrived except for what was rejected.
    Partly,
    /// It was refused for good.
    Refused,
    /// It was given up.
    Dropped,
}

#[derive(Default)]
struct DeliveryLog {
    kept: VecDeque<Delivery>,
    /// What is kept, in bytes, except for the last one: that one is still growing.
    bytes: usize,
    begun: u64,
    changes: u64,
}

/// How many are kept, and how many bytes of them.
const MAX_DELIVERIES: usize = 50;
const MAX_DELIVERY_BYTES: usize = 4 * 1024 * 1024;

impl Deliveries {
    /// What `look` makes of each, the newest first. They are not copied: their calls and answers may be large.
    #[must_use]
    pub fn newest_first<T>(&self, look: impl FnMut(&Delivery) -> Option<T>) -> Vec<T> {
        lock(&self.0).kept.iter().rev().filter_map(look).collect()
    }

    /// The one with that number, if it is still kept.
    #[must_use]
    pub fn numbered(&self, number: u64) -> Option<Delivery> {
        lock(&self.0).kept.iter().find(|delivery| delivery.number == number).cloned()
    }

    /// How many have begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        lock(&self.0).begun
    }

    /// A number that changes whenever anything in the list does.
    #[must_use]
    pub fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    /// A payload's first try begins. Answers its number: when settings change, two payloads may be on their way at once.
    pub(super) fn begin(&self, payload: &Arc<Payload>) -> u64 {
        let mut state = lock(&self.0);
        state.begun += 1;
        state.changes += 1;
        state.bytes += state.kept.back().map_or(0, Delivery::size);
        let delivery = Delivery {
            number: state.begun,
            payload: Arc::clone(payload),
            began: Utc::now(),
            took: Duration::ZERO,
            tries: 0,
            exchanges: Vec::new(),
            end: End::Sending,
            message: None,
            first_try: Instant::now(),
        };
        state.kept.push_back(delivery);
        state.make_room();
        state.begun
    }

    /// A try of this payload has ended.
    pub(super) fn tried(&self, number: u64, exchanges: Vec<RecordedCall>, outcome: &Outcome) {
        let (end, problem) = match outcome {
            Outcome::Delivered => (End::Delivered, None),
            Outcome::Warned(problem) => (End::Delivered, Some(problem)),
            Outcome::Partly { problem, .. } => (End::Partly, Some(problem)),
            Outcome::Refused(problem) => (End::Refused, Some(problem)),
            Outcome::Closed(problem) | Outcome::Later { problem, .. } => (End::Waiting, Some(problem)),
        };
        self.edit(number, |delivery| {
            delivery.took = delivery.first_try.elapsed();
            delivery.tries += 1;
            delivery.exchanges = exchanges;
            delivery.end = end;
            delivery.message = problem.map(|problem| problem.message.clone());
        });
    }

    /// This payload was reported as delivered, and turned out to be lost.
    pub(super) fn lost(&self, number: u64, problem: &Problem) {
        self.edit(number, |delivery| {
            delivery.end = End::Dropped;
            delivery.message = Some(problem.message.clone());
        });
    }

    /// This payload is not tried again, if it has not met its end yet.
    pub(super) fn gave_up(&self, number: u64) {
        self.edit(number, |delivery| {
            if matches!(delivery.end, End::Sending | End::Waiting) {
                delivery.end = End::Dropped;
            }
        });
    }

    fn edit(&self, number: u64, change: impl FnOnce(&mut Delivery)) {
        let mut state = lock(&self.0);
        state.changes += 1;
        if let Some(delivery) = state.kept.iter_mut().rev().find(|delivery| delivery.number == number) {
            change(delivery);
        }
    }
}

impl DeliveryLog {
    fn make_room(&mut self) {
        while self.kept.len() > 1 && (self.kept.len() > MAX_DELIVERIES || self.bytes > MAX_DELIVERY_BYTES) {
            let gone = self.kept.pop_front().map_or(0, |delivery| delivery.size());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

impl Delivery {
    fn size(&self) -> usize {
        let payload = self.payload.bytes.len() + self.payload.traces.len() * size_of::<crate::trace::id::TraceId>();
        let exchanges: usize = self.exchanges.iter().map(RecordedCall::size).sum();
        size_of::<Self>() + payload + exchanges
    }
}

impl End {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Partly => "partly delivered",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bytes: usize) -> Arc<Payload> {
        Arc::new(Payload { bytes: vec![b'x'; bytes], items: 1, traces: Vec::new(), trimmed: None })
    }

    fn problem() -> Problem {
        Problem::new("503", "not now")
    }

    #[test]
    fn a_delivery_is_seen_from_its_first_try_to_its_end() {
        let deliveries = Deliveries::default();
        deliveries.begin(&payload(3));
        assert_eq!(deliveries.numbered(1).unwrap().end, End::Sending);
        deliveries.tried(1, vec![RecordedCall::default()], &Outcome::Later { after: None, problem: problem() });
        let waiting = deliveries.numbered(1).unwrap();
        assert_eq!((waiting.end, waiting.tries, waiting.message), (End::Waiting, 1, Some("not now".into())));
        let changes = deliveries.changes();
        deliveries.tried(1, Vec::new(), &Outcome::Delivered);
        let delivered = deliveries.numbered(1).unwrap();
        assert_eq!((delivered.end, delivered.tries, delivered.message), (End::Delivered, 2, None));
        assert_ne!(deliveries.changes(), changes);
    }

    #[test]
    fn what_turns_out_to_be_lost_is_no_longer_shown_as_delivered() {
        let deliveries = Deliveries::default();
        for _ in 0..2 {
            let number = deliveries.begin(&payload(3));
            deliveries.tried(number, Vec::new(), &Outcome::Delivered);
        }
        deliveries.lost(1, &problem());
        let ends = deliveries.newest_first(|delivery| Some(delivery.end));
        assert_eq!(ends, [End::Delivered, End::Dropped]);
    }

    #[test]
    fn only_so_many_and_so_many_bytes_are_kept() {
        let deliveries = Deliveries::default();
        for _ in 0..=MAX_DELIVERIES {
            deliveries.begin(&payload(10));
        }
        let numbers = || deliveries.newest_first(|delivery| Some(delivery.number));
        assert_eq!(numbers().len(), MAX_DELIVERIES);
        assert!(deliveries.numbered(1).is_none());
        for _ in 0..20 {
            deliveries.begin(&payload(1_000_000));
        }
        assert_eq!((numbers()[0], numbers().len()), (71, 5));
        deliveries.begin(&payload(2 * MAX_DELIVERY_BYTES));
        deliveries.begin(&payload(1));
        assert_eq!(numbers().len(), 1);
        assert!(lock(&deliveries.0).bytes < MAX_DELIVERY_BYTES);
    }
}

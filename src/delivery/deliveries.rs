//! History of one backend's deliveries: payloads, calls and results. The number of deliveries and
//! their bytes are limited. The oldest deliveries are removed first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::backend::{Outcome, Payload, Problem};
use crate::sync::lock;
use crate::text::Message;
use crate::wire::recorded::RecordedCall;

/// The last deliveries of one backend.
#[derive(Default)]
pub struct Deliveries(Mutex<DeliveryLog>);

/// Size of the kept deliveries of all backends together, in bytes.
pub(super) type SharedSize = Arc<AtomicUsize>;

/// A payload and the result of its delivery so far.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Number of the delivery, counted from 1 since start-up.
    pub number: u64,
    /// The payload.
    pub payload: Arc<Payload>,
    /// Start of the first attempt.
    pub began: SystemTime,
    /// Time from the start of the first attempt to the end of the last one.
    pub took: Duration,
    /// Number of attempts.
    pub tries: u32,
    /// Calls of the last attempt, without secrets.
    pub exchanges: Vec<RecordedCall>,
    /// Status of the delivery.
    pub status: DeliveryStatus,
    /// Problem of the last attempt, with the next step.
    pub message: Option<Message>,
    first_try: Instant,
    /// Size that was added to those of all deliveries. 0 for the last one, which is still growing.
    counted: usize,
}

/// Status of a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeliveryStatus {
    /// The payload is being sent.
    Sending,
    /// The last attempt failed. The worker waits before the next one.
    Waiting,
    /// The destination accepted everything.
    Delivered,
    /// The destination accepted a part and rejected the rest.
    Partly,
    /// The destination rejected everything.
    Refused,
    /// Another service than the expected one answered with success.
    Unconfirmed,
    /// The payload is stored on disk, and will be sent from there.
    Stored,
    /// The worker gave up.
    Dropped,
}

#[derive(Default)]
struct DeliveryLog {
    kept: VecDeque<Delivery>,
    /// Size of the kept deliveries of this backend, and of all. Excludes the last one of each.
    own_bytes: usize,
    bytes: SharedSize,
    begun: u64,
    changes: u64,
}

const MAX_DELIVERIES: usize = 50;
/// Maximum size of the kept deliveries of all backends, besides the last one of each. A backend
/// that needs no more than its share of it keeps all.
const MAX_DELIVERY_BYTES: usize = 1024 * 1024;

impl Deliveries {
    /// Creates an empty list that shares its size with those of other backends.
    pub(super) fn new(bytes: SharedSize) -> Self {
        Self(Mutex::new(DeliveryLog { bytes, ..DeliveryLog::default() }))
    }

    /// Returns the results of `map`, newest delivery first. Deliveries can be large, so they are
    /// not cloned.
    pub fn newest_first<T>(&self, map: impl FnMut(&Delivery) -> Option<T>) -> Vec<T> {
        lock(&self.0).kept.iter().rev().filter_map(map).collect()
    }

    /// Returns the delivery with this number, if it is still kept.
    pub fn numbered(&self, number: u64) -> Option<Delivery> {
        lock(&self.0).kept.iter().find(|delivery| delivery.number == number).cloned()
    }

    /// Returns the number of deliveries since start-up.
    pub fn begun(&self) -> u64 {
        lock(&self.0).begun
    }

    /// Returns a number that changes whenever the list changes.
    pub fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    /// Records the start of a delivery. Returns its number, because after a settings change two
    /// workers can send at the same time.
    pub(super) fn begin(&self, payload: &Arc<Payload>) -> u64 {
        let mut state = lock(&self.0);
        state.begun += 1;
        state.changes += 1;
        state.count_last();
        let delivery = Delivery {
            number: state.begun,
            payload: Arc::clone(payload),
            began: SystemTime::now(),
            took: Duration::ZERO,
            tries: 0,
            exchanges: Vec::new(),
            status: DeliveryStatus::Sending,
            message: None,
            first_try: Instant::now(),
            counted: 0,
        };
        state.kept.push_back(delivery);
        state.make_room();
        state.begun
    }

    /// Records the result of an attempt.
    pub(super) fn tried(&self, number: u64, exchanges: Vec<RecordedCall>, outcome: &Outcome) {
        let status = match outcome {
            Outcome::Delivered | Outcome::Warned(_) => DeliveryStatus::Delivered,
            Outcome::Partly { .. } => DeliveryStatus::Partly,
            Outcome::Refused(_) | Outcome::RefusedForNow(_) => DeliveryStatus::Refused,
            Outcome::Unconfirmed(_) => DeliveryStatus::Unconfirmed,
            Outcome::Closed(_) | Outcome::Later { .. } => DeliveryStatus::Waiting,
        };
        self.edit(number, |delivery| {
            delivery.took = delivery.first_try.elapsed();
            delivery.tries += 1;
            delivery.exchanges = exchanges;
            delivery.status = status;
            delivery.message = outcome.problem().map(|problem| problem.message.clone());
        });
    }

    /// Marks a delivery as dropped, although it was reported as delivered.
    pub(super) fn lost(&self, number: u64, problem: &Problem) {
        self.edit(number, |delivery| {
            delivery.status = DeliveryStatus::Dropped;
            delivery.message = Some(problem.message.clone());
        });
    }

    /// Marks a delivery as stored on disk.
    pub(super) fn stored(&self, number: u64) {
        self.edit(number, |delivery| delivery.status = DeliveryStatus::Stored);
    }

    /// Marks a delivery as dropped, unless it already has a final status.
    pub(super) fn gave_up(&self, number: u64) {
        self.edit(number, |delivery| {
            if matches!(delivery.status, DeliveryStatus::Sending | DeliveryStatus::Waiting) {
                delivery.status = DeliveryStatus::Dropped;
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
    fn count_last(&mut self) {
        if let Some(last) = self.kept.back_mut() {
            last.counted = last.size();
            self.own_bytes += last.counted;
            self.bytes.fetch_add(last.counted, Ordering::Relaxed);
        }
    }

    fn make_room(&mut self) {
        // Each backend has a clone of the shared size.
        let share = MAX_DELIVERY_BYTES / Arc::strong_count(&self.bytes).max(1);
        while self.kept.len() > MAX_DELIVERIES
            || (self.own_bytes > share && self.bytes.load(Ordering::Relaxed) > MAX_DELIVERY_BYTES)
        {
            let Some(gone) = self.kept.pop_front() else { return };
            self.own_bytes -= gone.counted;
            self.bytes.fetch_sub(gone.counted, Ordering::Relaxed);
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

impl DeliveryStatus {
    /// Returns the status as text for the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Partly => "partly delivered",
            Self::Refused => "refused",
            Self::Unconfirmed => "unconfirmed",
            Self::Stored => "stored",
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
        assert_eq!(deliveries.numbered(1).unwrap().status, DeliveryStatus::Sending);
        deliveries.tried(1, vec![RecordedCall::default()], &Outcome::Later { after: None, problem: problem() });
        let waiting = deliveries.numbered(1).unwrap();
        assert_eq!(
            (waiting.status, waiting.tries, waiting.message),
            (DeliveryStatus::Waiting, 1, Some("not now".into()))
        );
        let changes = deliveries.changes();
        deliveries.tried(1, Vec::new(), &Outcome::Delivered);
        let delivered = deliveries.numbered(1).unwrap();
        assert_eq!((delivered.status, delivered.tries, delivered.message), (DeliveryStatus::Delivered, 2, None));
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
        let statuses = deliveries.newest_first(|delivery| Some(delivery.status));
        assert_eq!(statuses, [DeliveryStatus::Delivered, DeliveryStatus::Dropped]);
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
            deliveries.begin(&payload(250_000));
        }
        assert_eq!((numbers()[0], numbers().len()), (71, 5));
        deliveries.begin(&payload(2 * MAX_DELIVERY_BYTES));
        deliveries.begin(&payload(1));
        assert_eq!(numbers().len(), 1);
        assert!(lock(&deliveries.0).bytes.load(Ordering::Relaxed) < MAX_DELIVERY_BYTES);
    }

    #[test]
    fn all_backends_share_the_bytes() {
        let bytes = SharedSize::default();
        let lists = [(); 3].map(|()| Deliveries::new(Arc::clone(&bytes)));
        for _ in 0..MAX_DELIVERIES {
            for (list, size) in lists.iter().zip([1000, 1000, 250_000]) {
                list.begin(&payload(size));
            }
        }
        let kept = lists.each_ref().map(|list| list.newest_first(|delivery| Some(delivery.number)).len());
        assert_eq!((kept[0], kept[1]), (MAX_DELIVERIES, MAX_DELIVERIES));
        assert!((2..=5).contains(&kept[2]), "{kept:?}");
    }

    #[test]
    fn a_delivery_that_changes_after_the_next_one_has_begun_leaves_the_sum_right() {
        let deliveries = Deliveries::default();
        deliveries.begin(&payload(10));
        deliveries.begin(&payload(10));
        let call = RecordedCall { head: "x".repeat(5000), ..RecordedCall::default() };
        deliveries.tried(1, vec![call], &Outcome::Delivered);
        for _ in 0..MAX_DELIVERIES {
            deliveries.begin(&payload(10));
        }
        let log = lock(&deliveries.0);
        let counted: usize = log.kept.iter().map(|delivery| delivery.counted).sum();
        assert_eq!((log.own_bytes, log.bytes.load(Ordering::Relaxed)), (counted, counted));
    }
}

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::delivery::Outcome;
use crate::delivery::deliveries::SharedSize;
use crate::wire::recorded::RecordedCall;

/// A directory that is removed at the end of a test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("cruddur-spool-{}", IdSource::new().uuid())))
    }

    /// A spool of this directory, as a process opens it.
    fn spool(&self, max_bytes: u64, max_age: Duration) -> Spool {
        let stats = Arc::new(DeliveryStats::new("test", "spans", SharedSize::default()));
        let limits = SpoolLimits { directory: self.0.clone(), max_bytes, max_age };
        let spool = Spool::new(limits, &stats, &IdSource::new(), SpoolCounts::default());
        spool.open(Duration::from_secs(1));
        spool
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A transport that only says whether it compresses.
struct Fake {
    gzip: bool,
}

impl Transport for Fake {
    fn deliver(&mut self, _: &Payload, _: Option<Duration>, _: &mut Vec<RecordedCall>) -> Outcome {
        unreachable!("nothing is sent")
    }

    fn max_elapsed_time(&self) -> Option<Duration> {
        None
    }

    fn compresses(&self) -> bool {
        self.gzip
    }
}

const PLAIN: &Fake = &Fake { gzip: false };
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1024 * 1024;

fn payload(body: &str) -> Payload {
    Payload { bytes: body.as_bytes().to_vec(), items: 2, traces: Vec::new(), trimmed: None }
}

fn times() -> Times {
    let now = now_millis();
    Times { oldest: now - 1000, newest: now }
}

fn store(spool: &Spool, body: &str) {
    assert!(spool.store(&payload(body), false, times()).is_some(), "{body}");
}

fn body(replay: &Replay) -> &str {
    std::str::from_utf8(&replay.payload.bytes).unwrap()
}

/// The bodies that are sent, in this order, if the destination accepts all.
fn send_all(spool: &Spool) -> Vec<String> {
    let mut sent = Vec::new();
    while let Some(replay) = spool.next(PLAIN) {
        sent.push(body(&replay).to_owned());
        spool.settle(replay, 0);
        spool.is_back();
    }
    sent
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.collect()
}

#[test]
fn payloads_are_sent_in_the_order_in_which_they_were_stored_by_this_process_and_earlier_ones() {
    let directory = Directory::new();
    let earlier = directory.spool(MIB, DAY);
    ["a", "b", "c"].iter().for_each(|body| store(&earlier, body));
    earlier.close();
    let later = directory.spool(MIB, DAY);
    store(&later, "d");
    assert_eq!(later.view().items, 8);
    assert_eq!(send_all(&later), ["a", "b", "c", "d"]);
    let SpoolView { items, counts, .. } = later.view();
    assert_eq!((items, counts), (0, SpoolCounts { sent: 8, ..SpoolCounts::default() }));
}

#[test]
fn a_payload_that_is_never_accepted_does_not_block_the_others() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    ["poison", "b", "c"].iter().for_each(|body| store(&spool, body));
    for _ in 0..MAX_FAILURES {
        let replay = spool.next(PLAIN).unwrap();
        assert_eq!(body(&replay), "poison");
        spool.failed(&replay);
    }
    assert!(spool.is_away());
    // A new payload is accepted. So the destination is back, and the first has one more chance.
    spool.is_back();
    let replay = spool.next(PLAIN).unwrap();
    assert_eq!(body(&replay), "poison");
    spool.failed(&replay);
    drop(replay);
    assert!(!spool.is_away());
    assert_eq!(send_all(&spool), ["b", "c"]);
    assert_eq!((spool.view().items, spool.next(PLAIN).is_none()), (2, true), "it waits");
}

#[test]
fn after_an_outage_the_oldest_payload_is_the_first_whichever_was_accepted_before() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    ["a", "b"].iter().for_each(|body| store(&spool, body));
    for _ in 0..10 {
        spool.failed(&spool.next(PLAIN).unwrap());
    }
    spool.is_back();
    assert_eq!(send_all(&spool), ["a", "b"]);
}

#[test]
fn while_the_destination_is_away_the_oldest_payload_stays_the_next() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    ["a", "b"].iter().for_each(|body| store(&spool, body));
    for _ in 0..10 {
        spool.failed(&spool.next(PLAIN).unwrap());
    }
    assert_eq!(send_all(&spool), ["a", "b"]);
}

#[test]
fn what_is_too_old_for_the_destination_is_removed_and_counted() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    let yesterday = now_millis() - 25 * 60 * 60 * 1000;
    assert!(spool.store(&payload("old"), false, Times { oldest: yesterday, newest: yesterday }).is_some());
    assert!(spool.store(&payload("partly old"), false, Times { oldest: yesterday, ..times() }).is_some());
    assert_eq!(send_all(&spool), ["partly old"]);
    assert_eq!(spool.view().counts, SpoolCounts { sent: 2, expired: 2, ..SpoolCounts::default() });
}

#[test]
fn a_payload_that_another_process_is_sending_is_left_to_it() {
    let directory = Directory::new();
    let one = directory.spool(MIB, DAY);
    ["a", "b"].iter().for_each(|body| store(&one, body));
    let other = directory.spool(MIB, DAY);
    let first = one.next(PLAIN).unwrap();
    let second = other.next(PLAIN).unwrap();
    assert_eq!((body(&first), body(&second)), ("a", "b"));
    assert!(one.next(PLAIN).is_none() && other.next(PLAIN).is_none());
    one.settle(first, 0);
    other.settle(second, 0);
    assert!(one.next(PLAIN).is_none() && other.next(PLAIN).is_none());
    assert_eq!((one.view().batches, other.view().batches), (0, 0));
}

#[test]
fn a_payload_is_sent_with_the_compression_in_force() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    store(&spool, "plain");
    let compressed = spool.next(&Fake { gzip: true }).unwrap().payload;
    assert!(spool.store(&compressed, true, times()).is_some());
    assert_eq!(send_all(&spool), ["plain", "plain"]);
}

#[test]
fn the_oldest_payloads_make_room_for_new_ones_and_are_counted() {
    let directory = Directory::new();
    let spool = directory.spool(1500, DAY);
    let bodies: Vec<String> = (0..6).map(|_| (0..10).map(|_| IdSource::new().uuid()).collect()).collect();
    bodies.iter().for_each(|body| store(&spool, body));
    let SpoolView { items, bytes, counts, .. } = spool.view();
    assert!(counts.expired > 0 && items + counts.expired == 12 && bytes <= 1500, "{items} items, {counts:?}");
    assert_eq!(send_all(&spool), bodies[bodies.len() - items as usize / 2..]);
    let mentions = spool.stats.last_error().unwrap().message.to_string();
    assert!(mentions.contains("the spool is full") && mentions.contains("raise spool_max_mib"), "{mentions}");
}

#[test]
fn a_payload_larger_than_the_spool_is_not_stored_and_removes_no_other() {
    let directory = Directory::new();
    let spool = directory.spool(1000, DAY);
    store(&spool, "small");
    let random: String = (0..200).map(|_| IdSource::new().uuid()).collect();
    assert!(spool.store(&payload(&random), false, times()).is_none());
    assert_eq!(send_all(&spool), ["small"]);
}

#[test]
fn what_was_set_aside_is_bounded_and_what_a_killed_process_was_writing_is_removed() {
    let directory = Directory::new();
    let spool = directory.spool(1000, DAY);
    let folder = directory.0.join("test");
    for number in 0..5 {
        fs::write(folder.join(format!("{number}.batch")), "x".repeat(400)).unwrap();
    }
    fs::write(folder.join("tmp-deadbeef-1.batch"), "half a payl").unwrap();
    fs::write(folder.join("running-deadbeef"), "process 7").unwrap();
    let second = directory.spool(1000, DAY);
    assert!(second.next(PLAIN).is_none());
    assert_eq!(names(&directory.0.join("bad")).len(), 2);
    // The markers of the two that run are left.
    assert_eq!(names(&folder).len(), 2);
    spool.close();
    second.close();
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_payload_that_was_sent_but_cannot_be_removed_is_not_sent_again() {
    let directory = Directory::new();
    let spool = directory.spool(MIB, DAY);
    store(&spool, "a");
    let replay = spool.next(PLAIN).unwrap();
    // A directory in place of the file cannot be removed, whoever the user is.
    let path = directory.0.join("test").join(&replay.name);
    fs::rename(&path, path.with_extension("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    spool.settle(replay, 0);
    fs::remove_dir(&path).unwrap();
    fs::rename(path.with_extension("moved"), &path).unwrap();
    spool.list();
    assert!(spool.next(PLAIN).is_none());
    assert_eq!(spool.view().counts, SpoolCounts { sent: 2, ..SpoolCounts::default() });
    assert!(!path.exists(), "it is removed as soon as that works");
}

#[test]
fn a_spool_that_is_replaced_says_nothing_of_a_kill() {
    let directory = Directory::new();
    drop(directory.spool(MIB, DAY));
    assert_eq!(names(&directory.0.join("test")), [""; 0]);
}

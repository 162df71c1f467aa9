//! Payloads on disk. What a destination does not accept now is stored, and sent when the destination
//! is back, also by a later process. `file.rs` has the bytes of a file, `folder.rs` its place and its
//! lock.
//!
//! ```text
//! worker:   batch ─▶ encode ─▶ deliver ── accepted or refused ─▶ counted
//!                                 └────── later ───────────────▶ stored        (after one attempt)
//! worker, without a batch:        deliver ◀── the oldest stored payload
//! saver:    batch that the worker has not taken in time ─▶ encode ─▶ stored
//! ```
//!
//! Everything that goes wrong on the disk is logged once, and then the payload is retried in memory,
//! as without a spool.

mod file;
mod folder;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use self::file::{Header, StoredPayload};
use self::folder::{Folder, Listed, Lock, Locked};
use super::backend::{Payload, Problem, Transport};
use super::encode::prepared;
use super::stats::DeliveryStats;
use crate::settings::SpoolLimits;
use crate::sync::lock;
use crate::text::{Message, time};
use crate::trace::id::IdSource;

pub(super) use self::file::Times;

/// Stored payloads of one backend.
pub struct Spool {
    /// Limits in force.
    pub limits: SpoolLimits,
    folder: Folder,
    stats: Arc<DeliveryStats>,
    state: Mutex<State>,
}

/// Stored payloads and counts at one moment, in the unit of the backend.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolView {
    /// Folder of the backend.
    pub directory: String,
    /// Number of stored payloads.
    pub batches: usize,
    /// Number of stored spans or lines.
    pub items: u64,
    /// Size of the stored payloads.
    pub bytes: u64,
    /// Limit of `bytes`.
    pub max_bytes: u64,
    /// Time of the oldest stored item.
    pub oldest: Option<String>,
    /// Stored items that were sent in the last ten seconds, divided by ten.
    pub sent_per_second: f64,
    /// Counts of this process.
    #[serde(flatten)]
    pub counts: SpoolCounts,
    /// The same as a sentence. Empty if nothing was ever stored.
    pub text: String,
}

/// What has become of stored items in this process. They may come from an earlier process, so the
/// backend's own counts do not include them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SpoolCounts {
    /// Items that the destination accepted.
    pub sent: u64,
    /// Items that the destination rejected.
    pub rejected: u64,
    /// Items that were removed, because they were too old or the spool was full.
    pub expired: u64,
    /// Items, as far as they are known, in files that were moved aside or that have disappeared.
    pub lost: u64,
}

/// A stored payload that is locked until it is settled.
pub(super) struct Replay {
    pub(super) payload: Arc<Payload>,
    name: String,
    file: Locked,
}

#[derive(Default)]
struct State {
    /// Stored payloads by name, so the oldest is first.
    waiting: BTreeMap<String, Waiting>,
    counts: SpoolCounts,
    /// True after a payload was stored because the destination did not accept it, until it accepts one.
    is_away: bool,
    number: u32,
    listed: Option<Instant>,
    /// Times and sizes of what was sent in the last [`RATE_PERIOD`].
    sent: VecDeque<(Instant, u64)>,
    marker: Option<File>,
}

#[derive(Clone, Copy)]
struct Waiting {
    bytes: u64,
    items: u64,
    oldest: u64,
    /// Attempts in a row that failed.
    failures: u32,
    /// True if the destination accepted another payload while it did not accept this one. It is sent
    /// after all others.
    is_last: bool,
}

/// Time between two looks for payloads of other processes.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// Number of files in a folder. It bounds the memory of the list; `max_bytes` bounds the disk.
const MAX_FILES: usize = 20_000;
/// Failures of one payload after which another payload may be sent first.
const MAX_FAILURES: u32 = 3;
const RATE_PERIOD: Duration = Duration::from_secs(10);

impl Spool {
    pub(super) fn new(limits: SpoolLimits, stats: &Arc<DeliveryStats>, ids: &IdSource) -> Self {
        let id = ids.uuid()[..8].to_owned();
        let folder = Folder::new(&limits.directory, stats.name, id);
        Self { limits, folder, stats: Arc::clone(stats), state: Mutex::default() }
    }

    /// Looks for payloads of earlier processes, and reports those processes that were killed.
    /// `memory` is the time that an item spends in memory at most.
    pub(super) fn open(&self, memory: Duration) {
        if lock(&self.state).marker.is_some() {
            return;
        }
        let text =
            format!("process {}, started {}", std::process::id(), now().to_rfc3339_opts(SecondsFormat::Secs, true));
        match self.folder.mark(&text) {
            Ok((marker, killed)) => {
                lock(&self.state).marker = Some(marker);
                for process in killed {
                    let what = format!(
                        "the {process}, was killed or crashed: {} in its memory are lost, at most those of its last {memory:.0?}",
                        self.stats.unit
                    );
                    log::warn!(target: self.stats.name, "{}", Message::new(what).next("end it with SIGTERM, and give it 6 seconds"));
                }
            }
            Err(error) => self.report("cannot write to", &error),
        }
        self.list();
        let SpoolView { text, .. } = self.view();
        if !text.is_empty() {
            log::info!(target: self.stats.name, "{text}");
        }
    }

    /// Stores a payload. Returns false if that fails; the reason is logged.
    pub(super) fn store(&self, payload: &Payload, gzip: bool, times: Times) -> bool {
        let content = file::encode(payload, gzip, times);
        let bytes = content.len() as u64;
        if !self.make_room(bytes) {
            return false;
        }
        let name = {
            let mut state = lock(&self.state);
            state.number += 1;
            self.folder.name(now().timestamp_millis().unsigned_abs(), state.number)
        };
        if !self.folder.exists() {
            self.forget_all();
        }
        if let Err(error) = self.folder.write(&name, &content) {
            self.report("cannot write to", &error);
            return false;
        }
        let items = payload.items as u64;
        let waiting = Waiting { bytes, items, oldest: times.oldest, failures: 0, is_last: false };
        lock(&self.state).waiting.insert(name, waiting);
        true
    }

    /// Returns the next payload, locked, as `transport` sends it now. Files that cannot be sent are
    /// moved aside, and payloads that are too old are removed.
    pub(super) fn next(&self, transport: &dyn Transport) -> Option<Replay> {
        if lock(&self.state).listed.is_none_or(|listed| listed.elapsed() >= LIST_INTERVAL) {
            self.list();
        }
        let mut locked_by_others = BTreeSet::new();
        loop {
            let name = {
                let state = lock(&self.state);
                let mut names = state.waiting.iter().filter(|(name, _)| !locked_by_others.contains(*name));
                let first = names.next()?;
                let next =
                    if first.1.is_last { names.find(|(_, waiting)| !waiting.is_last).unwrap_or(first) } else { first };
                next.0.clone()
            };
            match self.folder.lock(&name) {
                Ok(Lock::Ours(file)) => match self.read(&name, &file, transport) {
                    Some(payload) => return Some(Replay { payload: Arc::new(payload), name, file }),
                    None => continue,
                },
                Ok(Lock::Gone) => self.forget(&name),
                Ok(Lock::Theirs) => drop(locked_by_others.insert(name)),
                Err(error) => {
                    self.report("cannot read", &error);
                    return None;
                }
            }
        }
    }

    /// Reads a payload. Returns `None` if it is no longer to be sent.
    fn read(&self, name: &str, file: &Locked, transport: &dyn Transport) -> Option<Payload> {
        let content = match file.read() {
            Ok(content) => content,
            Err(error) => {
                self.report("cannot read", &error);
                self.forget(name);
                return None;
            }
        };
        let StoredPayload { mut payload, gzip, times } = match file::decode(&content) {
            Ok(stored) => stored,
            Err(fault) => {
                self.set_aside(name, &fault.to_string());
                return None;
            }
        };
        let age = now().timestamp_millis().unsigned_abs().saturating_sub(times.newest);
        if u128::from(age) > self.limits.max_age.as_millis() {
            let days = self.limits.max_age.as_secs() / (24 * 60 * 60);
            self.expire(name, file, &format!("older than {days} days, which the destination does not accept"), "");
            return None;
        }
        match prepared(payload.bytes, gzip, transport) {
            Ok(bytes) => payload.bytes = bytes,
            Err(error) => {
                self.set_aside(name, &format!("cannot be decompressed ({error})"));
                return None;
            }
        }
        Some(payload)
    }

    /// Removes a payload of which the destination has rejected `rejected` items and accepted the rest.
    pub(super) fn settle(&self, replay: Replay, rejected: usize) {
        let items = replay.payload.items as u64;
        let rejected = (rejected as u64).min(items);
        {
            let mut state = lock(&self.state);
            state.counts.sent += items - rejected;
            state.counts.rejected += rejected;
            state.sent.push_back((Instant::now(), items));
            state.forget_old_rates();
        }
        self.remove(&replay.name, &replay.file);
    }

    /// Records that the destination still does not accept a payload.
    pub(super) fn failed(&self, replay: &Replay) {
        let mut state = lock(&self.state);
        state.is_away = true;
        if let Some(waiting) = state.waiting.get_mut(&replay.name) {
            waiting.failures += 1;
        }
    }

    /// Moves a payload aside that made the program panic.
    pub(super) fn panicked(&self, replay: &Replay) {
        self.set_aside(&replay.name, "made the program panic");
    }

    /// Records that the destination does not accept payloads now.
    pub(super) fn is_away_now(&self) {
        lock(&self.state).is_away = true;
    }

    /// Records that the destination has accepted a payload. If it has accepted none of a stored one's
    /// last attempts, that one is sent after all others.
    pub(super) fn is_back(&self) {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.is_away) {
            for waiting in state.waiting.values_mut().filter(|waiting| waiting.failures > 0) {
                waiting.is_last |= waiting.failures >= MAX_FAILURES;
                waiting.failures = 0;
            }
        }
    }

    /// Returns true if the destination is away and stored payloads will show when it is back.
    pub(super) fn is_away(&self) -> bool {
        let state = lock(&self.state);
        state.is_away && !state.waiting.is_empty()
    }

    /// Returns the problem of a payload that is stored because of it.
    pub(super) fn explain(&self, problem: &Problem) -> Problem {
        let message = problem.message.clone().and(&format!("the batch is stored in {}", self.folder.path().display()));
        let waits = message.next.starts_with("nothing");
        let message = if waits { message.next("nothing to do; it is sent from there") } else { message };
        Problem { kind: problem.kind.clone(), message }
    }

    /// Returns what is stored, and the counts.
    pub fn view(&self) -> SpoolView {
        let mut state = lock(&self.state);
        state.forget_old_rates();
        let sent: u64 = state.sent.iter().map(|(_, items)| items).sum();
        let view = SpoolView {
            max_bytes: self.limits.max_bytes,
            sent_per_second: sent as f64 / RATE_PERIOD.as_secs_f64(),
            counts: state.counts,
            ..SpoolView::new(&self.folder, state.waiting.values())
        };
        drop(state);
        view.with_text(self.stats.unit)
    }

    /// Records that the process has sent or stored all that it had in memory.
    pub(super) fn close(&self) {
        if lock(&self.state).marker.take().is_some() {
            self.folder.unmark();
        }
    }

    /// Compares the list in memory with the folder, which other processes may share.
    fn list(&self) {
        let known: Vec<String> = {
            let mut state = lock(&self.state);
            state.listed = Some(Instant::now());
            state.waiting.keys().cloned().collect()
        };
        let files = match self.folder.list() {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.forget_all(),
            Err(error) => return self.report("cannot read", &error),
        };
        let is_known = |name: &String| known.binary_search(name).is_ok();
        for Listed { name, bytes, .. } in files.iter().filter(|file| !is_known(&file.name)) {
            match self.folder.read_header(name) {
                Ok(Ok(header)) => {
                    lock(&self.state).waiting.insert(name.clone(), Waiting::new(*bytes, &header));
                }
                Ok(Err(fault)) => self.set_aside(name, &fault.to_string()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.report("cannot read", &error),
            }
        }
        let present: BTreeSet<&String> = files.iter().map(|file| &file.name).collect();
        let mut state = lock(&self.state);
        for name in known.iter().filter(|name| !present.contains(name)) {
            state.waiting.remove(name);
        }
    }

    /// Removes the oldest payloads until `bytes` more fit. Returns false if they do not fit.
    fn make_room(&self, bytes: u64) -> bool {
        let (max_bytes, mib) = (self.limits.max_bytes, self.limits.max_bytes / 1024 / 1024);
        let mut locked = BTreeSet::new();
        loop {
            let name = {
                let state = lock(&self.state);
                let stored: u64 = state.waiting.values().map(|waiting| waiting.bytes).sum();
                if stored + bytes <= max_bytes && state.waiting.len() < MAX_FILES {
                    return true;
                }
                state.waiting.keys().find(|name| bytes <= max_bytes && !locked.contains(*name)).cloned()
            };
            let Some(name) = name else {
                let what = format!("a payload of {bytes} bytes does not fit into the spool ({mib} MiB)");
                self.warn("full", Message::new(what).next("raise spool_max_mib"));
                return false;
            };
            match self.folder.lock(&name) {
                Ok(Lock::Ours(file)) => {
                    let why = format!("removed, because the spool is full ({mib} MiB)");
                    self.expire(&name, &file, &why, "solve the problem above, or raise spool_max_mib");
                }
                Ok(Lock::Gone) => self.forget(&name),
                Ok(Lock::Theirs) => drop(locked.insert(name)),
                Err(error) => {
                    self.report("cannot read", &error);
                    return false;
                }
            }
        }
    }

    /// Removes a payload that will not be sent.
    fn expire(&self, name: &str, file: &Locked, why: &str, next: &str) {
        let items = lock(&self.state).waiting.get(name).map_or(0, |waiting| waiting.items);
        lock(&self.state).counts.expired += items;
        let unit = self.stats.unit;
        self.warn(why, Message::new(format!("stored {unit} are {why}; they are counted as expired")).next(next));
        self.remove(name, file);
    }

    /// Removes the file of a payload. If that fails, the payload is not sent again by this process.
    fn remove(&self, name: &str, file: &Locked) {
        if let Err(error) = self.folder.remove(name, file) {
            self.report("cannot remove a file in", &error);
        }
        lock(&self.state).waiting.remove(name);
    }

    /// Moves a file aside that cannot be sent.
    fn set_aside(&self, name: &str, why: &str) {
        let items = lock(&self.state).waiting.remove(name).map_or(0, |waiting| waiting.items);
        lock(&self.state).counts.lost += items;
        match self.folder.set_aside(name, self.limits.max_bytes) {
            Ok(to) => {
                let what = format!("{name} {why}, and is now {}", to.display());
                self.warn(why, Message::new(what).next("keep it if a newer cruddur wrote it; otherwise delete it"));
            }
            Err(error) => self.report("cannot move a file out of", &error),
        }
    }

    /// Forgets a payload that another process has sent or removed. If the whole folder has
    /// disappeared, all payloads are lost.
    fn forget(&self, name: &str) {
        if self.folder.exists() {
            lock(&self.state).waiting.remove(name);
        } else {
            self.forget_all();
        }
    }

    fn forget_all(&self) {
        let waiting = std::mem::take(&mut lock(&self.state).waiting);
        let items = waiting.values().map(|waiting| waiting.items).sum::<u64>();
        if items > 0 {
            lock(&self.state).counts.lost += items;
            let (unit, path) = (self.stats.unit, self.folder.path().display());
            let what = format!("no such directory: {path}: {items} {unit} that were stored there are lost");
            self.warn("removed", Message::new(what).next("do not remove it while cruddur runs; it is created again"));
        }
    }

    fn report(&self, what: &str, error: &io::Error) {
        let (unit, path) = (self.stats.unit, self.folder.path().display());
        let what = format!("{what} {path}: {error}; {unit} wait in memory instead");
        let next = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk, or lower spool_max_mib",
            _ => "check spool_dir, and that this user may write there",
        };
        self.warn(&error.kind().to_string(), Message::new(what).next(next));
    }

    fn warn(&self, kind: &str, message: Message) {
        self.stats.warned(&Problem::new(format!("spool: {kind}"), message));
    }
}

/// Returns what is stored for a backend, for `cruddur check`, and whether more can be stored.
///
/// # Errors
///
/// The folder cannot be written to.
pub fn inspect(limits: &SpoolLimits, backend: &'static str, unit: &str, ids: &IdSource) -> io::Result<SpoolView> {
    let folder = Folder::new(&limits.directory, backend, ids.uuid()[..8].to_owned());
    folder.try_write()?;
    let header = |file: &Listed| Some(Waiting::new(file.bytes, &folder.read_header(&file.name).ok()?.ok()?));
    let waiting: Vec<Waiting> = folder.list()?.iter().filter_map(header).collect();
    Ok(SpoolView { max_bytes: limits.max_bytes, ..SpoolView::new(&folder, waiting.iter()) }.with_text(unit))
}

impl SpoolView {
    fn new<'a>(folder: &Folder, waiting: impl Iterator<Item = &'a Waiting>) -> Self {
        let mut view = Self { directory: folder.path().display().to_string(), ..Self::default() };
        let mut oldest = None;
        for one in waiting {
            view.batches += 1;
            view.items += one.items;
            view.bytes += one.bytes;
            oldest = Some(oldest.map_or(one.oldest, |oldest: u64| oldest.min(one.oldest)));
        }
        let oldest = oldest.and_then(|millis| DateTime::from_timestamp_millis(i64::try_from(millis).ok()?));
        Self { oldest: oldest.map(|time| time::millis(time).to_string()), ..view }
    }

    fn with_text(mut self, unit: &str) -> Self {
        let Self { directory, batches, items, sent_per_second, counts, .. } = &self;
        let SpoolCounts { sent, rejected, expired, lost } = counts;
        let mut sentences = Vec::new();
        if let Some(oldest) = &self.oldest {
            sentences
                .push(format!("{items} {unit} in {batches} batches wait in {directory}, the oldest since {oldest}"));
        }
        if *sent_per_second > 0.0 {
            sentences.push(format!("{sent_per_second} {unit} per second were sent from there"));
        }
        if *counts != SpoolCounts::default() {
            sentences.push(format!(
                "of the stored {unit}, {sent} were sent, {rejected} rejected, {expired} expired, {lost} lost"
            ));
        }
        self.text = sentences.join("; ");
        self
    }
}

impl Waiting {
    fn new(bytes: u64, header: &Header) -> Self {
        Self { bytes, items: header.items as u64, oldest: header.oldest, failures: 0, is_last: false }
    }
}

impl State {
    fn forget_old_rates(&mut self) {
        while self.sent.front().is_some_and(|(at, _)| at.elapsed() > RATE_PERIOD) {
            self.sent.pop_front();
        }
    }
}

fn now() -> DateTime<Utc> {
    Utc::now()
}

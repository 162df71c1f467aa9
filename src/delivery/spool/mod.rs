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
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};

use self::file::{Header, StoredPayload};
use self::folder::{Folder, Listed, Lock, Locked};
use super::backend::{Payload, Problem, Transport};
use super::encode::{gzip, prepared};
use super::stats::DeliveryStats;
use crate::settings::SpoolLimits;
use crate::sync::lock;
use crate::text::Message;
use crate::trace::id::IdSource;

pub(super) use self::file::Times;
pub use self::view::{SpoolCounts, SpoolView};

/// Stored payloads of one backend.
pub struct Spool {
    /// Limits in force.
    pub limits: SpoolLimits,
    folder: Folder,
    stats: Arc<DeliveryStats>,
    state: Mutex<State>,
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
    /// Payloads that are settled, but whose files could not be removed. They are not sent again.
    settled: BTreeSet<String>,
    /// True after a payload was stored because the destination did not accept it, until it accepts one.
    is_away: bool,
    number: u32,
    listed: Option<Instant>,
    /// Times and sizes of what was sent in the last [`RATE_PERIOD`].
    sent: VecDeque<(Instant, u64)>,
    marker: Option<File>,
}

#[derive(Clone, Copy, Default)]
struct Waiting {
    bytes: u64,
    items: u64,
    oldest: u64,
    /// Attempts in a row that failed.
    failures: u32,
    /// True if the destination has accepted another payload after it did not accept this one several
    /// times.
    is_suspect: bool,
    /// Set if it did not accept a suspect: the time of its next attempt. It is sent after all others,
    /// ever more seldom.
    last_at: Option<Instant>,
}

/// Time between two looks for payloads of other processes.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// Number of files in a folder. It bounds the memory of the list; `max_bytes` bounds the disk.
const MAX_FILES: usize = 20_000;
/// Failures of one payload that make it a suspect, if the destination then accepts another one.
const MAX_FAILURES: u32 = 3;
/// Longest wait between two attempts to send such a payload.
const MAX_WAIT: Duration = Duration::from_secs(600);
const RATE_PERIOD: Duration = Duration::from_secs(10);

impl Spool {
    /// `counts` are those of the spool that this one replaces.
    pub(super) fn new(limits: SpoolLimits, stats: &Arc<DeliveryStats>, ids: &IdSource, counts: SpoolCounts) -> Self {
        let id = ids.uuid()[..8].to_owned();
        let folder = Folder::new(&limits.directory, stats.name, id);
        Self { limits, folder, stats: Arc::clone(stats), state: Mutex::new(State { counts, ..State::default() }) }
    }

    /// Looks for payloads of earlier processes, and reports those processes that were killed.
    /// `memory` is the time that an item spends in memory at most.
    pub(super) fn open(&self, memory: Duration) {
        if let Err(error) = self.mark(memory) {
            self.report("cannot write to", &error, IN_MEMORY);
        }
        self.list();
        let text = self.view().text;
        if !text.is_empty() {
            log::info!(target: self.stats.name, "{text}");
        }
    }

    /// Marks this process as running, unless it is marked already. Only then it may write, because the
    /// files of a process without a mark are removed by others.
    fn mark(&self, memory: Duration) -> io::Result<()> {
        if lock(&self.state).marker.is_some() {
            return Ok(());
        }
        let started = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let (marker, killed) = self.folder.mark(&format!("process {}, started {started}", std::process::id()))?;
        lock(&self.state).marker = Some(marker);
        for process in killed.iter().map(|text| if text.is_empty() { "another process" } else { text }) {
            let unit = self.stats.unit;
            let what = format!(
                "{process}, was killed or crashed: {unit} in its memory may be lost, at most those of its last {memory:.0?}"
            );
            let message = Message::new(what).next("end it with SIGTERM, and give it 6 seconds");
            log::warn!(target: self.stats.name, "{message}");
        }
        Ok(())
    }

    /// Stores a payload, whose body is in gzip if `is_gzip`. Returns the name of the file, or `None` if
    /// that fails; the reason is logged.
    pub(super) fn store(&self, payload: &Payload, is_gzip: bool, times: Times) -> Option<String> {
        let content = match is_gzip {
            true => file::encode(payload, &payload.bytes, times),
            false => file::encode(payload, &gzip(&payload.bytes), times),
        };
        let bytes = content.len() as u64;
        if self.folder.is_gone() {
            self.forget_all();
        }
        if !self.make_room(bytes) {
            return None;
        }
        let name = {
            let mut state = lock(&self.state);
            state.number += 1;
            self.folder.name(now_millis(), state.number)
        };
        if let Err(error) = self.mark(Duration::ZERO).and_then(|()| self.folder.write(&name, &content)) {
            self.report("cannot write to", &error, IN_MEMORY);
            return None;
        }
        let items = payload.items as u64;
        let waiting = Waiting { bytes, items, oldest: times.oldest, ..Waiting::default() };
        lock(&self.state).waiting.insert(name.clone(), waiting);
        Some(name)
    }

    /// Removes a payload that this process has stored and was sent all the same. Returns false if it
    /// cannot be removed, or if another process sends it now.
    pub(super) fn withdraw(&self, name: &str) -> bool {
        let Ok(Lock::Ours(file)) = self.folder.lock(name) else { return false };
        self.folder.remove(name, &file).is_ok() && lock(&self.state).waiting.remove(name).is_some()
    }

    /// Returns the next payload, locked, as `transport` sends it now. Files that cannot be sent are
    /// moved aside, and payloads that are too old are removed.
    pub(super) fn next(&self, transport: &dyn Transport) -> Option<Replay> {
        if lock(&self.state).listed.is_none_or(|listed| listed.elapsed() >= LIST_INTERVAL) {
            self.list();
        }
        loop {
            let (name, file) = match self.lock_one(State::next) {
                Ok(locked) => locked?,
                Err(error) => {
                    self.report("cannot read", &error, ON_DISK);
                    return None;
                }
            };
            if let Some(payload) = self.read(&name, &file, transport) {
                return Some(Replay { payload: Arc::new(payload), name, file });
            }
        }
    }

    /// Locks the payload that `choose` names, given those to skip: others send them now.
    fn lock_one(
        &self,
        choose: impl Fn(&State, &BTreeSet<String>) -> Option<String>,
    ) -> io::Result<Option<(String, Locked)>> {
        let mut locked_by_others = BTreeSet::new();
        loop {
            let Some(name) = choose(&lock(&self.state), &locked_by_others) else { return Ok(None) };
            match self.folder.lock(&name)? {
                Lock::Ours(file) => return Ok(Some((name, file))),
                Lock::Theirs => drop(locked_by_others.insert(name)),
                Lock::Gone => self.forget(&name),
            }
        }
    }

    /// Reads a payload. Returns `None` if it is no longer to be sent.
    fn read(&self, name: &str, file: &Locked, transport: &dyn Transport) -> Option<Payload> {
        let content = match file.read() {
            Ok(content) => content,
            Err(error) => {
                self.report("cannot read", &error, ON_DISK);
                lock(&self.state).waiting.remove(name);
                return None;
            }
        };
        let StoredPayload { payload, times } = match file::decode(&content) {
            Ok(stored) => stored,
            Err(fault) => {
                self.set_aside(name, file, &fault.to_string());
                return None;
            }
        };
        let age = now_millis().saturating_sub(times.newest);
        if u128::from(age) > self.limits.max_age.as_millis() {
            let days = self.limits.max_age.as_secs() / (24 * 60 * 60);
            let why = format!("older than {days} days, which the destination does not accept");
            self.expire(name, file, &why, "nothing to do");
            return None;
        }
        match prepared(&payload.bytes, transport) {
            Ok(bytes) => Some(Payload { bytes, ..payload }),
            Err(error) => {
                self.set_aside(name, file, &format!("cannot be decompressed ({error})"));
                None
            }
        }
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
        let Some(waiting) = state.waiting.get_mut(&replay.name) else { return };
        waiting.failures += 1;
        let wait = Duration::from_secs(1 << waiting.failures.min(10)).min(MAX_WAIT);
        if waiting.is_suspect {
            waiting.last_at = Some(Instant::now() + wait);
        } else {
            state.is_away = true;
        }
    }

    /// Moves a payload aside that made the program panic.
    pub(super) fn panicked(&self, replay: &Replay) {
        self.set_aside(&replay.name, &replay.file, "made the program panic");
    }

    /// Records that the destination does not accept payloads now.
    pub(super) fn is_away_now(&self) {
        lock(&self.state).is_away = true;
    }

    /// Records that the destination has accepted a payload.
    pub(super) fn is_back(&self) {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.is_away) {
            for waiting in state.waiting.values_mut().filter(|waiting| !waiting.is_suspect) {
                waiting.is_suspect = waiting.failures >= MAX_FAILURES;
                waiting.failures = 0;
            }
        }
    }

    /// Returns true if the destination is away and stored payloads will show when it is back.
    pub(super) fn is_away(&self) -> bool {
        let state = lock(&self.state);
        state.is_away && state.waiting.values().any(|waiting| waiting.last_at.is_none())
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
    pub(super) fn list(&self) {
        let (known, settled) = {
            let mut state = lock(&self.state);
            state.listed = Some(Instant::now());
            (state.waiting.keys().cloned().collect::<BTreeSet<_>>(), state.settled.clone())
        };
        let files = match self.folder.list() {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.forget_all(),
            Err(error) => return self.report("cannot read", &error, ON_DISK),
        };
        let present: BTreeSet<&String> = files.iter().map(|file| &file.name).collect();
        {
            let mut state = lock(&self.state);
            state.waiting.retain(|name, _| !known.contains(name) || present.contains(name));
            state.settled.retain(|name| present.contains(name));
        }
        for Listed { name, bytes } in files.iter().filter(|file| !known.contains(&file.name)) {
            if settled.contains(name) {
                self.remove_again(name);
                continue;
            }
            match self.folder.read_header(name) {
                Ok(Ok(header)) => {
                    let mut state = lock(&self.state);
                    if state.waiting.len() < MAX_FILES {
                        state.waiting.insert(name.clone(), Waiting::new(*bytes, &header));
                    }
                }
                Ok(Err(fault)) => match self.folder.lock(name) {
                    Ok(Lock::Ours(file)) => self.set_aside(name, &file, &fault.to_string()),
                    Ok(Lock::Theirs | Lock::Gone) => {}
                    Err(error) => self.report("cannot read", &error, ON_DISK),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.report("cannot read", &error, ON_DISK),
            }
        }
    }

    /// Removes the file of a payload that is settled. If that failed before, it may work now.
    fn remove_again(&self, name: &str) {
        if let Ok(Lock::Ours(file)) = self.folder.lock(name)
            && self.folder.remove(name, &file).is_ok()
        {
            lock(&self.state).settled.remove(name);
        }
    }

    /// Removes the oldest payloads until `bytes` more fit. Returns false if they do not fit.
    fn make_room(&self, bytes: u64) -> bool {
        let max_bytes = self.limits.max_bytes;
        let bounds = format!("{} MiB or {MAX_FILES} files", max_bytes / 1024 / 1024);
        let fits = |state: &State| {
            let stored: u64 = state.waiting.values().map(|waiting| waiting.bytes).sum();
            stored + bytes <= max_bytes && state.waiting.len() < MAX_FILES
        };
        loop {
            let oldest = self.lock_one(|state, skipped| {
                let is_removed = bytes <= max_bytes && !fits(state);
                state.waiting.keys().find(|name| is_removed && !skipped.contains(*name)).cloned()
            });
            match oldest {
                Ok(Some((name, file))) => {
                    let why = format!("removed, because the spool is full ({bounds})");
                    self.expire(&name, &file, &why, "solve the problem above, or raise spool_max_mib");
                }
                Ok(None) if fits(&lock(&self.state)) => return true,
                Ok(None) => {
                    let what = format!("a payload of {bytes} bytes does not fit into the spool ({bounds})");
                    self.warn("full", Message::new(what).next("raise spool_max_mib"));
                    return false;
                }
                Err(error) => {
                    self.report("cannot read", &error, IN_MEMORY);
                    return false;
                }
            }
        }
    }

    /// Removes a payload that will not be sent.
    fn expire(&self, name: &str, file: &Locked, why: &str, next: &str) {
        let items = lock(&self.state).waiting.get(name).map_or(0, |waiting| waiting.items);
        lock(&self.state).counts.expired += items;
        let (unit, path) = (self.stats.unit, self.folder.path().display());
        let what = format!("stored {unit} are {why}; they are removed from {path} and counted as expired");
        self.warn(why, Message::new(what).next(next));
        self.remove(name, file);
    }

    /// Removes the file of a payload that is settled.
    fn remove(&self, name: &str, file: &Locked) {
        let removed = self.folder.remove(name, file);
        let mut state = lock(&self.state);
        state.waiting.remove(name);
        if let Err(error) = removed {
            state.settled.insert(name.to_owned());
            drop(state);
            self.report("cannot remove a file in", &error, NOT_AGAIN);
        }
    }

    /// Moves a file aside that cannot be sent.
    fn set_aside(&self, name: &str, file: &Locked, why: &str) {
        let moved = self.folder.set_aside(name, file, self.limits.max_bytes);
        let mut state = lock(&self.state);
        state.counts.lost += state.waiting.remove(name).map_or(0, |waiting| waiting.items);
        match moved {
            Ok(to) => {
                drop(state);
                let what = format!("{name} {why}, and is now {}", to.display());
                self.warn(why, Message::new(what).next("keep it if a newer cruddur wrote it; otherwise delete it"));
            }
            Err(error) => {
                state.settled.insert(name.to_owned());
                drop(state);
                self.report("cannot move a file out of", &error, NOT_AGAIN);
            }
        }
    }

    /// Forgets a payload that another process has sent or removed. If the whole folder has
    /// disappeared, all payloads are lost.
    fn forget(&self, name: &str) {
        if self.folder.is_gone() {
            self.forget_all();
        } else {
            lock(&self.state).waiting.remove(name);
        }
    }

    fn forget_all(&self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.marker = None;
            std::mem::take(&mut state.waiting)
        };
        let items = waiting.values().map(|waiting| waiting.items).sum::<u64>();
        if items > 0 {
            lock(&self.state).counts.lost += items;
            let (unit, path) = (self.stats.unit, self.folder.path().display());
            let what = format!("no such directory: {path}: {items} {unit} that were stored there are lost");
            self.warn("removed", Message::new(what).next("do not remove it while cruddur runs; it is created again"));
        }
    }

    fn report(&self, what: &str, error: &io::Error, consequence: &str) {
        let (unit, path) = (self.stats.unit, self.folder.path().display());
        let what = format!("{what} {path}: {error}; {unit} {consequence}");
        let next = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk, or lower spool_max_mib",
            ErrorKind::Unsupported => "choose a directory on a local disk, whose file system has locks (flock)",
            _ => "check spool_dir, and that this user may write there",
        };
        self.warn(&error.kind().to_string(), Message::new(what).next(next));
    }

    fn warn(&self, kind: &str, message: Message) {
        self.stats.warned(&Problem::new(format!("spool: {kind}"), message));
    }
}

const IN_MEMORY: &str = "wait in memory instead";
const ON_DISK: &str = "there wait until it works";
const NOT_AGAIN: &str = "in it are not sent again by this process";

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns what is stored for a backend, for `cruddur check`, and whether more can be stored.
///
/// # Errors
///
/// The folder cannot be written to.
pub fn inspect(limits: &SpoolLimits, backend: &'static str, unit: &str, ids: &IdSource) -> io::Result<SpoolView> {
    let folder = Folder::new(&limits.directory, backend, ids.uuid()[..8].to_owned());
    folder.check()?;
    let header = |file: &Listed| Some(Waiting::new(file.bytes, &folder.read_header(&file.name).ok()?.ok()?));
    let files = match folder.list() {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        files => files?,
    };
    let waiting: Vec<Waiting> = files.iter().filter_map(header).collect();
    Ok(SpoolView { max_bytes: limits.max_bytes, ..SpoolView::new(&folder, waiting.iter()) }.with_text(unit))
}

impl Waiting {
    fn new(bytes: u64, header: &Header) -> Self {
        Self { bytes, items: header.items as u64, oldest: header.oldest, ..Self::default() }
    }
}

impl State {
    /// Returns the oldest payload that is due, but not one of `skipped`.
    fn next(&self, skipped: &BTreeSet<String>) -> Option<String> {
        let due = || self.waiting.iter().filter(|(name, _)| !skipped.contains(*name));
        let first = due().find(|(_, waiting)| waiting.last_at.is_none());
        let next = first.or_else(|| due().find(|(_, waiting)| waiting.last_at.is_some_and(|at| at <= Instant::now())));
        next.map(|(name, _)| name.clone())
    }

    fn forget_old_rates(&mut self) {
        while self.sent.front().is_some_and(|(at, _)| at.elapsed() > RATE_PERIOD) {
            self.sent.pop_front();
        }
    }
}

fn now_millis() -> u64 {
    Utc::now().timestamp_millis().unsigned_abs()
}

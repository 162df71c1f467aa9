//! What the process uses of the system: descriptors, threads, memory; and when that is too much.
//!
//! tiny_http never frees some connections: a request line with `HTTP/2.0` blocks its thread for
//! ever, and a body that is announced as too large to be allocated can only be kept. Each costs a
//! thread and two descriptors. Before they run out, the process renews itself: see
//! `run/renew.rs`. A crowd of other connections needs no renewal: see `servers.rs`.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::closing::Reason;
use super::peers::Peers;
use crate::page::{DescriptorsView, ProcessView};

/// What the keeper saw at its last look, and the renewals so far.
#[derive(Debug)]
pub struct Process {
    /// Number of open descriptors.
    pub(super) descriptors: AtomicUsize,
    pub(super) connections: AtomicUsize,
    /// Number of connections that are so new that their first request may be on its way.
    pub(super) fresh: AtomicUsize,
    /// Number of looks so far.
    pub(super) looks: AtomicUsize,
    /// Descriptors of closed connections that tiny_http still holds.
    pub(super) leaked: AtomicUsize,
    /// Number of descriptors before the first connection was accepted. 0 if the system does not tell.
    at_start: usize,
    started: Instant,
    renewals: Renewals,
}

/// Renewals of the process so far.
#[derive(Clone, Debug, Default)]
pub struct Renewals {
    /// Number of renewals.
    pub count: u32,
    /// Cause of the last one, as text.
    pub last: Option<String>,
    /// True if the listening socket belongs to a service manager too.
    pub is_socket_shared: bool,
}

/// Cause of a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Too many descriptors are in use, or belong to connections that tiny_http never frees.
    Descriptors,
    /// There are too many threads.
    Threads,
    /// Too much memory is in use.
    Memory,
    /// tiny_http has stopped accepting connections.
    Accept,
}

/// Maximum number of descriptors of connections that tiny_http never frees: a part of the limit, and
/// not more than this.
const MAX_LEAKED: usize = 1024;
const LEAKED_PART: usize = 4;
/// Part of the descriptors that must be free; otherwise they count as exhausted.
const EXHAUSTED_REST: usize = 7;
/// Time for the keeper to free descriptors by closing connections, before the process renews itself.
pub(super) const TIME_TO_FREE: Duration = Duration::from_millis(500);
/// Number of descriptors that a fresh process needs to serve.
const MIN_FREE: usize = 32;
/// Maximum number of threads. All connections, outboxes and backends together have fewer.
const MAX_THREADS: u64 = 2048;
/// Maximum resident memory, in kB. Five full queues have 80 MiB, full outboxes 16, and the stores
/// of the page 6. In a container it is at most half of the container's memory.
const MAX_MEMORY: u64 = 128 * 1024;
/// Minimum time to deliver what is queued before a renewal.
const MIN_DELIVERY: Duration = Duration::from_secs(1);
/// Minimum time between two renewals.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// The same, when descriptors are exhausted or no connection can be accepted.
const MIN_LIFE_EXHAUSTED: Duration = Duration::from_millis(100);

/// Limits of the number of open descriptors: the one in force, and the one to which a process may
/// raise it. `None` means that there is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescriptorLimits {
    /// Limit in force.
    pub soft: Option<u64>,
    /// Maximum of the other one.
    pub hard: Option<u64>,
}

/// Raises the limit of descriptors as far as the system allows. Each connection needs three.
pub fn raise_descriptor_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The limits in force, if the system tells them.
pub(super) fn descriptor_limits() -> Option<DescriptorLimits> {
    #[cfg(target_os = "linux")]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(DescriptorLimits { soft: limit.current, hard: limit.maximum })
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The limit in force, as a number.
pub(super) fn descriptor_limit() -> usize {
    let soft = descriptor_limits().and_then(|limits| limits.soft);
    soft.and_then(|soft| usize::try_from(soft).ok()).unwrap_or(usize::MAX)
}

/// The number of open descriptors; 0 if the system does not tell.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The maximum resident memory in kB: half of the container's, if that is less.
fn max_memory() -> u64 {
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|bytes| bytes.trim().parse::<u64>().ok());
    limit.map_or(MAX_MEMORY, |bytes| (bytes / 2048).min(MAX_MEMORY))
}

/// The number of threads, and the resident memory in kB, if the system tells them.
pub(super) fn threads_and_memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((number("Threads:")?, number("VmRSS:")?))
}

impl Process {
    /// The state of a process that has not accepted a connection yet.
    pub(super) fn new(renewals: Renewals) -> Self {
        Self {
            descriptors: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            leaked: AtomicUsize::new(0),
            at_start: open_descriptors(),
            started: Instant::now(),
            renewals,
        }
    }

    /// Renewals so far.
    pub fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    /// True if a fresh process could be started, and could accept connections. Where the limit of
    /// descriptors is so low that it could not, renewals would go round in circles.
    pub fn may_renew(&self) -> bool {
        self.at_start > 0 && descriptor_limit().saturating_sub(self.at_start) >= MIN_FREE
    }

    /// Time to deliver what is queued before a renewal, at most `longest`: a quarter of the time
    /// since the last renewal, and at least a second. So the program serves most of the time, even
    /// if the backends hang and renewals come every few seconds.
    pub fn time_to_deliver(&self, longest: Duration) -> Duration {
        (self.started.elapsed() / 4).clamp(MIN_DELIVERY.min(longest), longest)
    }

    /// Time until the process may be renewed because it can accept no more connections.
    pub fn time_to_renewal(&self) -> Duration {
        MIN_LIFE_EXHAUSTED.saturating_sub(self.started.elapsed())
    }

    /// True if less than three quarters of the descriptors are in use now.
    pub(super) fn has_room(&self) -> bool {
        open_descriptors() <= descriptor_limit() / 4 * 3
    }

    /// True while three quarters of the descriptors are in use.
    pub(super) fn is_tight(&self) -> bool {
        self.descriptors.load(Ordering::Relaxed) > descriptor_limit() / 4 * 3
    }

    /// True while so few descriptors are free that they count as exhausted. Where the limit is so low
    /// that a fresh process comes near it, they do not: a renewal would not help.
    pub(super) fn is_exhausted(&self) -> bool {
        let limit = descriptor_limit();
        let used = self.descriptors.load(Ordering::Relaxed);
        used > limit - limit / EXHAUSTED_REST && used.saturating_sub(self.at_start) > limit / LEAKED_PART
    }

    /// The cause for a renewal, if there is one now. Descriptors have been exhausted for so long.
    pub(super) fn renewal_cause(&self, exhausted: Duration) -> Option<Cause> {
        let life = self.started.elapsed();
        let limit = descriptor_limit();
        if life >= MIN_LIFE_EXHAUSTED && exhausted > TIME_TO_FREE {
            return Some(Cause::Descriptors);
        }
        if life < MIN_LIFE && self.renewals.count > 0 {
            return None;
        }
        if self.leaked.load(Ordering::Relaxed) > (limit / LEAKED_PART).min(MAX_LEAKED) {
            return Some(Cause::Descriptors);
        }
        None
    }

    /// The same for threads and memory, which take longer to ask for.
    pub(super) fn slow_renewal_cause(&self) -> Option<Cause> {
        if self.started.elapsed() < MIN_LIFE && self.renewals.count > 0 {
            return None;
        }
        match threads_and_memory()? {
            (threads, _) if threads > MAX_THREADS => Some(Cause::Threads),
            (_, memory) if memory > max_memory() => Some(Cause::Memory),
            _ => None,
        }
    }

    /// What the process uses, for a log line.
    pub fn usage(&self) -> String {
        let soft = descriptor_limits().and_then(|limits| limits.soft);
        let limit = soft.map_or_else(|| "any number".to_owned(), |soft| soft.to_string());
        let used = open_descriptors();
        let (threads, memory) = threads_and_memory().unwrap_or_default();
        format!(
            "{used} of {limit} descriptors ({} of closed connections), {threads} threads, {memory} kB",
            self.leaked.load(Ordering::Relaxed)
        )
    }

    /// The state of the process, for the status. What the system does not tell is missing.
    pub(super) fn view(&self, peers: &Peers) -> ProcessView {
        let known = |value: &AtomicUsize| match value.load(Ordering::Relaxed) {
            0 => None,
            value => Some(value),
        };
        let limits = descriptor_limits().unwrap_or_default();
        let usage = threads_and_memory();
        ProcessView {
            descriptors: DescriptorsView {
                used: Some(open_descriptors()).filter(|used| *used > 0),
                soft: limits.soft,
                hard: limits.hard,
            },
            threads: usage.map(|(threads, _)| threads),
            memory_kb: usage.map(|(_, memory)| memory),
            connections: known(&self.descriptors).map(|_| self.connections.load(Ordering::Relaxed)),
            connections_closed: Reason::ALL.map(|reason| (reason.as_str(), peers.closed().count(reason))).into(),
            renewals: self.renewals.count,
            last_renewal: self.renewals.last.clone(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptors run out",
            Self::Threads => "there are too many threads",
            Self::Memory => "too much memory is in use",
            Self::Accept => "no connection can be accepted any more",
        })
    }
}

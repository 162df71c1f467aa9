//! What the process uses of the system: descriptors, threads, memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::peers::{Peers, Reason};
use crate::page::{DescriptorsView, ProcessView};

/// What the keeper saw at its last look.
#[derive(Debug, Default)]
pub struct Process {
    pub(super) descriptors: AtomicUsize,
    pub(super) connections: AtomicUsize,
    /// Descriptors of closed connections that tiny_http still holds.
    pub(super) leaked: AtomicUsize,
}

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
    /// The state of the process, for the status. What the system does not tell is missing.
    pub(super) fn view(&self, peers: &Peers) -> ProcessView {
        let known = |value: &AtomicUsize| match value.load(Ordering::Relaxed) {
            0 => None,
            value => Some(value),
        };
        let limits = descriptor_limits().unwrap_or_default();
        let usage = threads_and_memory();
        ProcessView {
            descriptors: DescriptorsView { used: known(&self.descriptors), soft: limits.soft, hard: limits.hard },
            threads: usage.map(|(threads, _)| threads),
            memory_kb: usage.map(|(_, memory)| memory),
            connections: known(&self.descriptors).map(|_| self.connections.load(Ordering::Relaxed)),
            connections_closed: Reason::ALL.map(|reason| (reason.as_str(), peers.closed(reason))).into(),
            ..ProcessView::default()
        }
    }
}

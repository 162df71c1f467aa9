//! Closing connections before their clients close them, counted by reason.

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::Socket;

/// Reason why a connection was closed before its client closed it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// No request came for too long.
    Idle,
    /// Much input came, and no request of it.
    Greedy,
    /// Too many requests waited.
    Pipelining,
    /// The client did not read its responses.
    NotReading,
    /// There were more connections than the program can hold.
    OverCap,
    /// No request was under way while memory grew fast.
    Memory,
}

/// Numbers of connections that were closed, by reason.
#[derive(Default)]
pub(super) struct ClosedConnections {
    counts: [AtomicU64; Reason::ALL.len()],
}

impl ClosedConnections {
    /// Number of connections that were closed for this reason.
    pub(super) fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// Closes a connection and counts it.
    pub(super) fn close(&self, socket: &Socket, reason: Reason) {
        if reason == Reason::Greedy {
            // A reset, as soon as tiny_http lets go of it. Otherwise a client that only writes would
            // learn nothing.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        if socket.shutdown(Shutdown::Both).is_ok() {
            self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Reason {
    /// All reasons.
    pub(super) const ALL: [Self; 6] =
        [Self::Idle, Self::Greedy, Self::Pipelining, Self::NotReading, Self::OverCap, Self::Memory];

    /// Its name in the status.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Greedy => "greedy",
            Self::Pipelining => "pipelining",
            Self::NotReading => "not_reading",
            Self::OverCap => "over_cap",
            Self::Memory => "memory",
        }
    }
}

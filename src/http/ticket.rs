//! A request on its way through the program, and the ticket that counts it as being answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::{ReadWrite, Request};

use super::body::BodyKind;
use super::closing::Reason;
use super::peers::{FIND_WITHIN, Peers};
use super::send::leak;

/// A request, and the ticket that counts it as being answered.
pub struct QueuedRequest {
    /// Request.
    pub request: Request,
    /// Kept until the request is answered.
    pub ticket: Ticket,
}

/// Counts a request as being answered until it is dropped. Until then its connection is not idle.
pub struct Ticket {
    peers: Arc<Peers>,
    address: SocketAddr,
}

/// Stream of a request whose body has not been read.
pub(super) type Stream = Box<dyn ReadWrite + Send>;

/// Maximum time of one wait for input; the socket may be closed by another thread meanwhile.
#[cfg(target_os = "linux")]
const POLL: Duration = Duration::from_millis(100);

impl Ticket {
    /// The ticket of a request that the loop is about to answer.
    pub(super) fn new(peers: Arc<Peers>, address: SocketAddr) -> Self {
        Self { peers, address }
    }

    /// Address of the client.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A thread begins to read the body of this request.
    pub(super) fn body_begins(&self, kind: BodyKind) {
        self.peers.body_begins(self.address, kind);
    }

    /// False if no response can follow on the connection.
    pub(super) fn may_be_answered(&self) -> bool {
        self.peers.may_be_answered(self.address)
    }

    /// Discards all further requests of the client, and closes its connection.
    pub(super) fn give_up(&self, reason: Reason) {
        self.peers.give_up(self.address, reason);
    }

    /// Leaves it to the keeper to close the connection, and to drop the stream of a request whose
    /// body has not been read. Where there is no keeper, the stream is kept for ever.
    pub(super) fn drop_unread(self, stream: Stream) {
        self.give_up(Reason::NotReading);
        if self.peers.has_keeper() {
            let peers = Arc::clone(&self.peers);
            peers.drop_soon(self, stream);
        } else {
            leak(stream);
        }
    }

    /// Waits until the client has sent more. Returns false if it has closed its side, if the keeper
    /// does not find the connection, or at the deadline.
    #[cfg(target_os = "linux")]
    pub(super) fn wait_for_input(&self, deadline: Instant) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let find_until = Instant::now() + FIND_WITHIN * 5;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let (socket, has_ended) = self.peers.socket(self.address);
            if has_ended {
                return false;
            }
            let Some(socket) = socket else {
                if !self.peers.has_keeper() {
                    return true;
                }
                if Instant::now() > find_until {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(5).min(left));
                continue;
            };
            if rustix::io::ioctl_fionread(&*socket).is_ok_and(|unread| unread > 0) {
                return true;
            }
            let mut state = [PollFd::new(&*socket, PollFlags::IN | PollFlags::RDHUP)];
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.min(POLL).subsec_nanos()) };
            if poll(&mut state, Some(&timeout)).is_err()
                || state[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
            {
                return false;
            }
        }
    }

    /// There is no keeper here. The receive timeout ends a read.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn wait_for_input(&self, _: Instant) -> bool {
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.peers.answered(self.address);
    }
}

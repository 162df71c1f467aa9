//! Request bodies. tiny_http has already read those of up to 1,024 bytes. For longer ones a thread
//! has to wait for the client, and the request loop never does: a thread of its own reads the body
//! and hands the request back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::head::Head;
use super::listener::Waker;
use super::response::Failure;
use super::send::leak;
use super::spawn::spawn_with;
use super::ticket::{QueuedRequest, Ticket};
use crate::sync::lock;
use crate::trace::span::Timestamp;

/// A request that can be answered without waiting for its client.
pub struct ReceivedRequest {
    /// Request.
    pub request: Request,
    /// Kept until the request is answered.
    pub ticket: Ticket,
    /// Time at which its head was received.
    pub at: Timestamp,
    /// Body, or the reason why the request is rejected before it reaches a handler.
    pub body: Result<Vec<u8>, Failure>,
    /// State of the body on the connection.
    pub body_state: BodyState,
}

/// State of a request's body on its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyState {
    /// All of it has been read.
    Read,
    /// Some of it is still to come. The request must not be dropped, see [`super::send`].
    Unread,
}

/// Kind of a body that tiny_http has not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyKind {
    /// It has as many bytes as `Content-Length` says.
    Sized,
    /// Its chunks end somewhere. tiny_http keeps the whole line that begins a chunk in memory,
    /// however long it is.
    Chunked,
}

/// A request whose body has to be read first.
struct PendingBody {
    request: Request,
    ticket: Ticket,
    at: Timestamp,
    length: usize,
}

/// Maximum size of a body: 1,024 characters, each escaped in JSON as `\ud83d\ude00`, and some room.
const MAX_BODY: usize = 16 * 1024;
/// Maximum size of a body that tiny_http reads by itself.
pub(super) const READ_AHEAD: usize = 1024;
/// Maximum time to read a body.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of threads that read bodies.
const MAX_READERS: usize = 64;
/// Maximum number of requests that wait for such a thread.
const MAX_WAITING: usize = 256;

/// Reads bodies on other threads.
pub struct BodyReader {
    waker: Waker,
    ready: Arc<Mutex<VecDeque<ReceivedRequest>>>,
    /// Number of threads that read.
    readers: Arc<AtomicUsize>,
    waiting: VecDeque<PendingBody>,
}

impl BodyReader {
    /// A reader that wakes the loop whenever a thread has read a body.
    pub fn new(waker: Waker) -> Self {
        Self { waker, ready: Arc::default(), readers: Arc::default(), waiting: VecDeque::new() }
    }

    /// Takes a request from the listener. Returns it at once if tiny_http has read its body, or if
    /// it is rejected. Otherwise [`Self::next_ready`] returns it once a thread has read the body.
    pub fn receive(&mut self, queued: QueuedRequest) -> Option<ReceivedRequest> {
        let QueuedRequest { request, ticket } = queued;
        let at = Timestamp::now();
        let length = request.body_length().unwrap_or(0);
        let head = Head::read(&request);
        let body_state = body_state(&request, head.is_chunked, length);
        if let Err(failure) = check(head, length) {
            return Some(ReceivedRequest { request, ticket, at, body: Err(failure), body_state });
        }
        let pending = PendingBody { request, ticket, at, length };
        if body_state == BodyState::Read {
            return Some(pending.read());
        }
        if self.readers.load(Ordering::Acquire) < MAX_READERS {
            self.spawn_reader(pending)
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(pending);
            None
        } else {
            Some(pending.reject_busy())
        }
    }

    /// Returns the next request that can be answered.
    pub fn next_ready(&mut self) -> Option<ReceivedRequest> {
        while self.readers.load(Ordering::Acquire) < MAX_READERS
            && let Some(pending) = self.waiting.pop_front()
        {
            if let Some(rejected) = self.spawn_reader(pending) {
                return Some(rejected);
            }
        }
        lock(&self.ready).pop_front()
    }

    /// True while there are requests that [`Self::next_ready`] has not returned yet.
    pub fn has_pending(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0 || !self.waiting.is_empty() || !lock(&self.ready).is_empty()
    }

    /// Keeps the requests that were not answered in time until the process ends. If they were
    /// dropped, tiny_http would read the rest of each body first.
    pub fn abandon(self) {
        leak(self.waiting);
        leak(std::mem::take(&mut *lock(&self.ready)));
    }

    /// Returns the request with its rejection if no thread can be started.
    fn spawn_reader(&self, pending: PendingBody) -> Option<ReceivedRequest> {
        let (ready, readers, waker) = (Arc::clone(&self.ready), Arc::clone(&self.readers), self.waker.clone());
        pending.ticket.body_begins(BodyKind::Sized);
        self.readers.fetch_add(1, Ordering::AcqRel);
        let not_started = spawn_with("body", pending, move |pending| {
            let received = pending.read();
            lock(&ready).push_back(received);
            readers.fetch_sub(1, Ordering::AcqRel);
            waker.wake();
        });
        not_started.map(|pending| {
            self.readers.fetch_sub(1, Ordering::AcqRel);
            pending.reject_busy()
        })
    }
}

impl PendingBody {
    /// Reads the body, or gives up when it takes too long. A body that tiny_http has read comes
    /// from memory.
    fn read(mut self) -> ReceivedRequest {
        let (began, length) = (Instant::now(), self.length);
        let mut body = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let too_late = began.elapsed() >= TIMEOUT;
            match if too_late { Ok(0) } else { self.request.as_reader().read(&mut body[filled..]) } {
                Ok(0) | Err(_) => {
                    let waited = began.elapsed().as_secs_f64();
                    return self.reject(
                        408,
                        format!("incomplete body: {filled} of {length} bytes came within {waited:.0} seconds"),
                    );
                }
                Ok(count) => filled += count,
            }
        }
        let Self { request, ticket, at, .. } = self;
        ReceivedRequest { request, ticket, at, body: Ok(body), body_state: BodyState::Read }
    }

    fn reject_busy(self) -> ReceivedRequest {
        self.reject(503, "server busy: too many request bodies at once; try again")
    }

    fn reject(self, status: u16, message: impl Into<String>) -> ReceivedRequest {
        let body = Err(Failure::rejected(status, message));
        let Self { request, ticket, at, .. } = self;
        ReceivedRequest { request, ticket, at, body, body_state: BodyState::Unread }
    }
}

impl BodyKind {
    /// The kind of the body that is still to be read from the connection of `request`.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let is_chunked = request.headers().iter().any(|header| header.field.equiv("transfer-encoding"));
        let length = request.body_length().unwrap_or(0);
        match body_state(request, is_chunked, length) {
            BodyState::Read => None,
            BodyState::Unread if is_chunked => Some(Self::Chunked),
            BodyState::Unread => Some(Self::Sized),
        }
    }
}

/// tiny_http reads short bodies ahead, unless they are chunked or the client asks for an upgrade or
/// for `100 Continue`.
fn body_state(request: &Request, is_chunked: bool, length: usize) -> BodyState {
    let upgrades_or_expects = request.headers().iter().any(|header| {
        let is_upgrade = || header.value.as_str().to_ascii_lowercase().contains("upgrade");
        header.field.equiv("expect") || (header.field.equiv("connection") && is_upgrade())
    });
    let is_read = length == 0 || (length <= READ_AHEAD && !upgrades_or_expects);
    if is_read && !is_chunked { BodyState::Read } else { BodyState::Unread }
}

/// Rejects requests that no handler can answer.
fn check(head: Head<'_>, length: usize) -> Result<(), Failure> {
    let (status, message) = if head.is_chunked {
        let message = "Transfer-Encoding is not supported; send Content-Length instead";
        (411, message.to_owned())
    } else if length > MAX_BODY {
        (413, format!("request body too large; at most {MAX_BODY} bytes are accepted"))
    } else if let Some(problem) = head.problem {
        return Err(problem);
    } else if head.method == "POST" && !head.has_length {
        (411, "Content-Length is missing; send a JSON object as the body".to_owned())
    } else {
        return Ok(());
    };
    Err(Failure::rejected(status, message))
}

//! Sending responses. The loop writes nearly all of them at once. One that would make the loop wait
//! goes to an outbox: a thread that writes the responses of one connection, in order, as fast as
//! the client reads them.
//!
//! ```text
//! loop ──▶ write ──▶ done                            nearly always
//!            └─────▶ the client's window is full ──▶ outbox: write and wait, or give the connection up
//! loop ──▶ response of more than 64 KiB ───────────▶ outbox
//! loop ──▶ response to an unread body ─────────────▶ outbox: write, then read the body and discard it
//! ```

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{Request, Response};

use super::body::{BodyKind, READ_AHEAD};
use super::closing::Reason;
use super::spawn::spawn_with;
use super::ticket::{Stream, Ticket};
use crate::sync::lock;

/// Sends responses.
#[derive(Default)]
pub struct Sender {
    shared: Arc<Outboxes>,
}

/// Error of a client that has closed its connection, or does not read its responses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientGone;

#[derive(Default)]
struct Outboxes {
    by_client: Mutex<HashMap<SocketAddr, Outbox>>,
    /// Their number. While it is 0, the loop does not lock them.
    count: AtomicUsize,
}

/// Responses of one client.
struct Outbox {
    /// Those behind the one that the thread is writing.
    jobs: VecDeque<Job>,
    /// Size of all.
    bytes: usize,
}

/// State of a connection after a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Connection {
    /// Ready for the next response.
    Good,
    /// Closed, or given up: no more responses can be written to it.
    Over,
}

/// A response to write.
enum Job {
    Response(Box<dyn Write + Send>, Vec<u8>, Ticket),
    /// Response to a request whose body has not been read.
    Refusal(Request, Vec<u8>, Ticket),
}

/// Maximum size of a response that the loop writes. It fits into the socket's buffer, unless the
/// client has left earlier ones unread.
const MAX_DIRECT: usize = 64 * 1024;
const MAX_OUTBOXES: usize = 128;
/// Maximum size of the responses in one outbox. The connection is given up when it is reached.
const MAX_OUTBOX_BYTES: usize = 4 * 1024 * 1024;
/// The same for all outboxes together.
const MAX_OUTBOX_BYTES_OF_ALL: usize = 16 * 1024 * 1024;
/// Maximum time to write one response.
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Maximum time to read an unread body and discard it.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to read the response before the connection is closed.
const READING_TIME: Duration = Duration::from_millis(500);
/// Maximum size of a body that is read and discarded.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

impl Sender {
    /// Sends the bytes of a response. The request's body must have been read.
    ///
    /// # Errors
    ///
    /// The client has closed the connection, or does not read. A response that an outbox is still
    /// writing may fail later.
    pub fn send(&self, request: Request, ticket: Ticket, bytes: &[u8]) -> Result<(), ClientGone> {
        let peer = ticket.address();
        if self.shared.count.load(Ordering::Acquire) > 0 {
            let mut outboxes = lock(&self.shared.by_client);
            if outboxes.contains_key(&peer) {
                return put(&mut outboxes, peer, Job::Response(request.into_writer(), bytes.to_vec(), ticket));
            }
        }
        let mut writer = request.into_writer();
        // After the outboxes: one that ends gives its client up first.
        if !ticket.may_be_answered() {
            return Err(ClientGone);
        }
        if bytes.len() > MAX_DIRECT {
            return self.open_outbox(peer, Job::Response(writer, bytes.to_vec(), ticket));
        }
        match write_some(&mut writer, bytes) {
            Ok(None) => Ok(()),
            Ok(Some(written)) => self.open_outbox(peer, Job::Response(writer, bytes[written..].to_vec(), ticket)),
            Err(_) => Err(ClientGone),
        }
    }

    /// Sends the response to a request whose body has not been read. Some of the body is read and
    /// discarded, so that the client can read the response.
    ///
    /// # Errors
    ///
    /// The client has closed the connection, or there is no thread for it.
    pub fn refuse(&self, request: Request, ticket: Ticket, bytes: &[u8]) -> Result<(), ClientGone> {
        let peer = ticket.address();
        let job = Job::Refusal(request, bytes.to_vec(), ticket);
        let mut outboxes = lock(&self.shared.by_client);
        if outboxes.contains_key(&peer) {
            return put(&mut outboxes, peer, job);
        }
        drop(outboxes);
        self.open_outbox(peer, job)
    }

    /// True while responses are being written.
    pub fn has_pending(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) > 0
    }

    fn open_outbox(&self, peer: SocketAddr, job: Job) -> Result<(), ClientGone> {
        let mut outboxes = lock(&self.shared.by_client);
        let bytes = job.size();
        if outboxes.len() == MAX_OUTBOXES || !has_room(&outboxes, bytes) || !job.ticket().may_be_answered() {
            drop(outboxes);
            job.discard();
            return Err(ClientGone);
        }
        outboxes.insert(peer, Outbox { jobs: VecDeque::new(), bytes });
        self.shared.count.store(outboxes.len(), Ordering::Release);
        drop(outboxes);
        let shared = Arc::clone(&self.shared);
        let not_started = spawn_with("outbox", job, move |job| shared.work(peer, job));
        let Some(job) = not_started else { return Ok(()) };
        job.discard();
        self.shared.remove(&mut lock(&self.shared.by_client), peer);
        Err(ClientGone)
    }
}

impl Outboxes {
    /// Writes the responses of one connection until its outbox is empty. The outbox's thread runs
    /// this.
    fn work(&self, peer: SocketAddr, first: Job) {
        let mut job = first;
        loop {
            let size = job.size();
            let connection = job.run();
            let mut outboxes = lock(&self.by_client);
            let next = outboxes.get_mut(&peer).and_then(|outbox| {
                outbox.bytes -= size;
                outbox.jobs.pop_front()
            });
            match (connection, next) {
                (Connection::Good, Some(next)) => job = next,
                (Connection::Good, None) => return drop(self.remove(&mut outboxes, peer)),
                (Connection::Over, next) => {
                    let waiting = self.remove(&mut outboxes, peer).map(|outbox| outbox.jobs).unwrap_or_default();
                    drop(outboxes);
                    return next.into_iter().chain(waiting).for_each(Job::discard);
                }
            }
        }
    }

    fn remove(&self, outboxes: &mut HashMap<SocketAddr, Outbox>, peer: SocketAddr) -> Option<Outbox> {
        let removed = outboxes.remove(&peer);
        self.count.store(outboxes.len(), Ordering::Release);
        removed
    }
}

/// Queues a response behind others of the same client.
fn put(outboxes: &mut HashMap<SocketAddr, Outbox>, peer: SocketAddr, job: Job) -> Result<(), ClientGone> {
    let has_room = has_room(outboxes, job.size());
    match outboxes.get_mut(&peer) {
        Some(outbox) if has_room && outbox.bytes + job.size() <= MAX_OUTBOX_BYTES && job.ticket().may_be_answered() => {
            outbox.bytes += job.size();
            outbox.jobs.push_back(job);
            Ok(())
        }
        _ => {
            job.abandon();
            Err(ClientGone)
        }
    }
}

fn has_room(outboxes: &HashMap<SocketAddr, Outbox>, bytes: usize) -> bool {
    outboxes.values().map(|outbox| outbox.bytes).sum::<usize>() + bytes <= MAX_OUTBOX_BYTES_OF_ALL
}

impl Job {
    fn run(self) -> Connection {
        match self {
            Self::Response(mut writer, bytes, ticket) => write_all(&mut *writer, &bytes, &ticket),
            Self::Refusal(request, bytes, ticket) => refuse(request, &bytes, ticket),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Response(_, bytes, _) | Self::Refusal(_, bytes, _) => bytes.len(),
        }
    }

    fn ticket(&self) -> &Ticket {
        match self {
            Self::Response(_, _, ticket) | Self::Refusal(_, _, ticket) => ticket,
        }
    }

    /// Ends the job without a response, or in the middle of one. No other response may be before
    /// it.
    fn discard(self) {
        match self {
            Self::Refusal(request, _, ticket)
                if request.body_length().is_none_or(|length| length <= MAX_DISCARDED_BYTES) =>
            {
                ticket.drop_unread(stream_of(request));
            }
            other => other.abandon(),
        }
    }

    /// The same while other responses may be before it.
    fn abandon(self) {
        self.ticket().give_up(Reason::NotReading);
        match self {
            Self::Response(writer, ..) => drop(writer),
            Self::Refusal(request, ..) => leak(request),
        }
    }
}

/// Writes as much as possible without waiting. Returns the number of bytes written if some are
/// left. Head and body are written together: a separate body would wait until the client has
/// acknowledged the head.
fn write_some(writer: &mut Box<dyn Write + Send>, bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if is_full(&error) => return Ok(Some(written)),
            Err(error) => return Err(error),
        }
    }
    match writer.flush() {
        Ok(()) => Ok(None),
        // All bytes are in the writer's buffer, which has to be flushed again.
        Err(error) if is_full(&error) => Ok(Some(written)),
        Err(error) => Err(error),
    }
}

/// Writes all bytes, waiting for a slow client. One that is too slow is given up.
fn write_all(writer: &mut (impl Write + ?Sized), bytes: &[u8], ticket: &Ticket) -> Connection {
    let deadline = Instant::now() + TIMEOUT;
    let mut written = 0;
    loop {
        let result = if written < bytes.len() { writer.write(&bytes[written..]) } else { writer.flush().map(|()| 0) };
        match result {
            Ok(0) if written == bytes.len() => return Connection::Good,
            Ok(count) if count > 0 => written += count,
            Err(error) if is_full(&error) && Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
            Err(error) if is_full(&error) => {
                ticket.give_up(Reason::NotReading);
                return Connection::Over;
            }
            Ok(_) | Err(_) => return Connection::Over,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Ends a request without a response. The writer must not wait for the responses before it.
pub(super) fn discard(request: Request) {
    if BodyKind::of(&request).is_none() { drop(request.into_writer()) } else { leak(request) }
}

/// The connection of a request, with the reader of its body. Only an upgrade returns it without
/// dropping the reader. tiny_http sends a response of its own for that, so it is given an interim
/// one (100), and the real response follows.
fn stream_of(request: Request) -> Stream {
    request.upgrade("none", Response::empty(100))
}

/// Writes the response, then reads the body and discards it.
fn refuse(request: Request, bytes: &[u8], ticket: Ticket) -> Connection {
    let length = request.body_length();
    let mut stream = stream_of(request);
    ticket.body_begins(if length.is_some() { BodyKind::Sized } else { BodyKind::Chunked });
    let deadline = Instant::now() + DISCARD_TIMEOUT;
    let mut connection = write_all(&mut *stream, bytes, &ticket);
    if length.is_some_and(|length| length > MAX_DISCARDED_BYTES) {
        // tiny_http drops the reader also where the body breaks off, so none of the body is read.
        ticket.give_up(Reason::NotReading);
        leak(stream);
        // Closing the connection while the client sends could destroy a response that it has not
        // read yet.
        thread::sleep(READING_TIME);
        return Connection::Over;
    }
    let mut buffer = [0; 8 * 1024];
    let mut total = 0;
    while connection == Connection::Good
        && length != Some(total)
        && total < MAX_DISCARDED_BYTES
        && Instant::now() < deadline
    {
        let rest = length.map_or(0, |length| length - total);
        if rest > READ_AHEAD && !ticket.wait_for_input(deadline) {
            break;
        }
        match stream.read(&mut buffer) {
            // The end of a chunked body; a body with a length was broken off.
            Ok(0) if length.is_none() => return Connection::Good,
            Ok(count) if count > 0 => total += count,
            // No byte arrived within the receive timeout.
            Err(error) if is_full(&error) => {}
            Ok(_) | Err(_) => connection = Connection::Over,
        }
    }
    let is_small = length.is_none_or(|length| length - total <= READ_AHEAD);
    if is_small && (connection == Connection::Over || length == Some(total)) {
        return connection;
    }
    ticket.drop_unread(stream);
    Connection::Over
}

/// Keeps a request or its stream for ever, and with it a thread and a connection. This is on
/// purpose: dropping it would drop tiny_http's reader of the body, which then reads the rest,
/// however long the client takes, into a buffer of the `Content-Length` that the client has sent.
/// If that cannot be allocated, the process aborts.
pub(super) fn leak<T>(value: T) {
    std::mem::forget(value);
}

#[cfg(test)]
mod tests {
    use tiny_http::TestRequest;

    use super::*;
    use crate::http::peers::Peers;

    fn job(peers: &Arc<Peers>, port: u16, bytes: usize) -> Job {
        let address = ([127, 0, 0, 1], port).into();
        let ticket = Ticket::new(Arc::clone(peers), address);
        let request: Request = TestRequest::new().with_remote_addr(address).into();
        Job::Response(request.into_writer(), vec![b'x'; bytes], ticket)
    }

    fn outboxes(sizes: &[usize]) -> HashMap<SocketAddr, Outbox> {
        let outbox = |bytes| Outbox { jobs: VecDeque::new(), bytes };
        (1..).zip(sizes).map(|(port, size)| (([127, 0, 0, 1], port).into(), outbox(*size))).collect()
    }

    fn is_given_up(peers: &Arc<Peers>, port: u16) -> bool {
        !peers.may_be_answered(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn a_client_that_would_fill_its_outbox_or_all_outboxes_is_given_up_alone() {
        let peers = Arc::<Peers>::default();
        let mib = 1024 * 1024;
        // 15 MiB in five outboxes: there is room for one MiB more, in those with less than 4.
        let mut all = outboxes(&[3 * mib; 5]);
        let mut put_one = |port, bytes| put(&mut all, ([127, 0, 0, 1], port).into(), job(&peers, port, bytes));
        assert_eq!(put_one(1, mib / 2), Ok(()));
        assert_eq!(put_one(2, mib / 2), Ok(()));
        assert_eq!(put_one(3, 1), Err(ClientGone));
        assert!(is_given_up(&peers, 3) && [1, 2, 4, 5].iter().all(|port| !is_given_up(&peers, *port)));
        let mut one = outboxes(&[MAX_OUTBOX_BYTES]);
        assert_eq!(put(&mut one, ([127, 0, 0, 1], 1).into(), job(&peers, 1, 1)), Err(ClientGone));
        assert!(is_given_up(&peers, 1));
    }

    #[test]
    fn no_outbox_is_opened_while_all_together_are_full() {
        let (peers, sender) = (Arc::<Peers>::default(), Sender::default());
        *lock(&sender.shared.by_client) = outboxes(&[MAX_OUTBOX_BYTES; MAX_OUTBOX_BYTES_OF_ALL / MAX_OUTBOX_BYTES]);
        let client = ([127, 0, 0, 1], 9).into();
        assert_eq!(sender.open_outbox(client, job(&peers, 9, 1)), Err(ClientGone));
        assert!(is_given_up(&peers, 9) && !lock(&sender.shared.by_client).contains_key(&client));
    }
}

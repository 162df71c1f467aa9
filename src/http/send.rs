//! Answers leave. Nearly all in one write from the loop; what would make the loop wait goes to an outbox: a thread that
//! writes the answers of one connection, in their order, as fast as the client takes them.
//!
//! ```text
//! loop ──▶ write ──▶ all gone                                 nearly always
//!            └─────▶ the client's window is full ──▶ outbox: write, wait, write .. or give the connection up
//! loop ──▶ answer of more than 64 KiB ─────────────▶ outbox
//! loop ──▶ refusal of a body that nobody has read ─▶ outbox: write, then read the body away, for a while
//! ```

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{Request, Response};

use super::spawn::spawn_with_request;
use crate::sync::lock;

/// Sends answers.
#[derive(Default)]
pub struct Sender {
    shared: Arc<Outboxes>,
}

/// The client has left, or does not read what it asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientGone;

#[derive(Default)]
struct Outboxes {
    state: Mutex<Connections>,
    /// How many connections `state` knows: with none, the loop need not look.
    known: AtomicUsize,
}

#[derive(Default)]
struct Connections {
    outboxes: HashMap<SocketAddr, Outbox>,
    /// Connections that got half an answer and must not get another byte, and when they last asked for one. They end by
    /// themselves: a connection that asks for nothing is closed after the receive time-out.
    given_up: HashMap<SocketAddr, Instant>,
}

/// The answers that wait behind the one that a thread is writing.
#[derive(Default)]
struct Outbox {
    jobs: VecDeque<Job>,
    bytes: usize,
}

/// What a job leaves behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Connection {
    /// Ready for the next answer.
    Good,
    /// Closed, or never to ask for anything again.
    Over,
    /// Open, but with half an answer on it.
    HalfWritten,
}

enum Job {
    Response(Box<dyn Write + Send>, Vec<u8>),
    Refusal(Request, Vec<u8>),
}

/// What fits into the socket's buffer, unless the client lets answers pile up.
const SMALL: usize = 64 * 1024;
const MAX_OUTBOXES: usize = 128;
/// What may wait in one outbox; a client that lets more pile up is given up.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// How long one answer may take to leave.
const TIMEOUT: Duration = Duration::from_secs(30);
const BEFORE_THE_NEXT_TRY: Duration = Duration::from_millis(10);
/// How long, and how far, a refused body is read away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DRAIN: usize = 16 * 1024 * 1024;
/// Longer than a silent connection lives.
const FORGET_AFTER: Duration = Duration::from_secs(6);
/// Connections that are remembered as given up.
const MAX_GIVEN_UP: usize = 1024;

impl Sender {
    /// Sends the bytes of an answer. The request's body must have been read.
    ///
    /// # Errors
    ///
    /// The client has left, or does not read. What is still being written when this returns may fail later.
    pub fn send(&self, request: Request, bytes: &[u8]) -> Result<(), ClientGone> {
        let Some(peer) = request.remote_addr().copied() else { return Err(ClientGone) };
        if self.shared.known.load(Ordering::Acquire) > 0 {
            let mut state = lock(&self.shared.state);
            let given_up = state.is_given_up(peer);
            self.shared.recount(&state);
            if given_up {
                // The writer is let go without a word.
                drop(request.into_writer());
                return Err(ClientGone);
            }
            if state.outboxes.contains_key(&peer) {
                return state.put(peer, Job::Response(request.into_writer(), bytes.to_vec()));
            }
        }
        let mut writer = request.into_writer();
        if bytes.len() > SMALL {
            return self.open_outbox(peer, Job::Response(writer, bytes.to_vec()));
        }
        match write_some(&mut writer, bytes) {
            Ok(None) => Ok(()),
            Ok(Some(written)) => self.open_outbox(peer, Job::Response(writer, bytes[written..].to_vec())),
            Err(_) => Err(ClientGone),
        }
    }

    /// Answers a request whose body nobody has read, nor will.
    ///
    /// # Errors
    ///
    /// The client has left, or there is no thread to do it.
    pub fn refuse(&self, request: Request, bytes: &[u8]) -> Result<(), ClientGone> {
        let Some(peer) = request.remote_addr().copied() else {
            leak(request);
            return Err(ClientGone);
        };
        let job = Job::Refusal(request, bytes.to_vec());
        let mut state = lock(&self.shared.state);
        if state.is_given_up(peer) {
            job.discard();
            return Err(ClientGone);
        }
        if state.outboxes.contains_key(&peer) {
            return state.put(peer, job);
        }
        drop(state);
        self.open_outbox(peer, job)
    }

    /// Whether answers are still being written.
    #[must_use]
    pub fn are_pending(&self) -> bool {
        !lock(&self.shared.state).outboxes.is_empty()
    }

    fn open_outbox(&self, peer: SocketAddr, job: Job) -> Result<(), ClientGone> {
        let mut state = lock(&self.shared.state);
        if state.outboxes.len() == MAX_OUTBOXES {
            return self.shared.give_up(&mut state, peer, job);
        }
        state.outboxes.entry(peer).or_default();
        self.shared.recount(&state);
        drop(state);
        let shared = Arc::clone(&self.shared);
        let not_done = match job {
            Job::Refusal(request, bytes) => {
                spawn_with_request("outbox", request, move |request| shared.work(peer, Job::Refusal(request, bytes)))
                    .map(|request| Job::Refusal(request, Vec::new()))
            }
            // If there is no thread, the writer is gone with the closure, and the connection has to go too.
            answer => thread::Builder::new()
                .name("outbox".to_owned())
                .spawn(move || shared.work(peer, answer))
                .err()
                .map(|_| Job::Response(Box::new(io::sink()), Vec::new())),
        };
        let Some(job) = not_done else { return Ok(()) };
        let mut state = lock(&self.shared.state);
        state.outboxes.remove(&peer);
        self.shared.give_up(&mut state, peer, job)
    }
}

impl Outboxes {
    /// An outbox's thread: writes until nothing waits any more.
    fn work(&self, peer: SocketAddr, first: Job) {
        let mut job = first;
        loop {
            let connection = job.run();
            let mut state = lock(&self.state);
            let next = state.outboxes.get_mut(&peer).and_then(|outbox| outbox.jobs.pop_front());
            match (connection, next) {
                (Connection::Good, Some(next)) => {
                    if let Some(outbox) = state.outboxes.get_mut(&peer) {
                        outbox.bytes -= next.size();
                    }
                    job = next;
                }
                (Connection::Good, None) => {
                    state.outboxes.remove(&peer);
                    return self.recount(&state);
                }
                (bad, next) => {
                    next.into_iter().for_each(Job::discard);
                    let waiting = state.outboxes.remove(&peer).map(|outbox| outbox.jobs).unwrap_or_default();
                    waiting.into_iter().for_each(Job::discard);
                    if bad == Connection::HalfWritten {
                        state.give_up(peer);
                    }
                    return self.recount(&state);
                }
            }
        }
    }

    fn give_up(&self, state: &mut Connections, peer: SocketAddr, job: Job) -> Result<(), ClientGone> {
        job.discard();
        state.give_up(peer);
        self.recount(state);
        Err(ClientGone)
    }

    fn recount(&self, state: &Connections) {
        self.known.store(state.outboxes.len() + state.given_up.len(), Ordering::Release);
    }
}

impl Connections {
    fn put(&mut self, peer: SocketAddr, job: Job) -> Result<(), ClientGone> {
        let Some(outbox) = self.outboxes.get_mut(&peer) else {
            job.discard();
            return Err(ClientGone);
        };
        if outbox.bytes + job.size() > MAX_WAITING {
            job.discard();
            self.give_up(peer);
            return Err(ClientGone);
        }
        outbox.bytes += job.size();
        outbox.jobs.push_back(job);
        Ok(())
    }

    fn give_up(&mut self, peer: SocketAddr) {
        if self.given_up.len() == MAX_GIVEN_UP {
            let oldest = self.given_up.iter().min_by_key(|(_, asked)| **asked).map(|(peer, _)| *peer);
            oldest.map(|peer| self.given_up.remove(&peer));
        }
        self.given_up.insert(peer, Instant::now());
    }

    fn is_given_up(&mut self, peer: SocketAddr) -> bool {
        let now = Instant::now();
        // A port that was quiet for so long belongs to somebody else by now.
        self.given_up.retain(|_, asked| now - *asked < FORGET_AFTER);
        self.given_up.get_mut(&peer).map(|asked| *asked = now).is_some()
    }
}

impl Job {
    /// Does it.
    fn run(self) -> Connection {
        match self {
            Self::Response(mut writer, bytes) => write_blocking(&mut *writer, &bytes),
            Self::Refusal(request, bytes) => refuse(request, &bytes),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Response(_, bytes) | Self::Refusal(_, bytes) => bytes.len(),
        }
    }

    /// Ends it without an answer.
    fn discard(self) {
        match self {
            Self::Response(writer, _) => drop(writer),
            Self::Refusal(request, _) => leak(request),
        }
    }
}

/// Writes as much as leaves without waiting; answers what is left from where, if anything is. Head and body are one
/// piece: in two, the second would wait for the client to acknowledge the first.
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
        // All of it is in the writer's own buffer, which has to be flushed again.
        Err(error) if is_full(&error) => Ok(Some(written)),
        Err(error) => Err(error),
    }
}

/// Writes all of it, even if the client takes its time.
fn write_blocking(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> Connection {
    let deadline = Instant::now() + TIMEOUT;
    let mut written = 0;
    loop {
        let result = if written < bytes.len() { writer.write(&bytes[written..]) } else { writer.flush().map(|()| 0) };
        match result {
            Ok(0) if written == bytes.len() => return Connection::Good,
            Ok(count) if count > 0 => written += count,
            Err(error) if is_full(&error) && Instant::now() < deadline => thread::sleep(BEFORE_THE_NEXT_TRY),
            Err(error) if is_full(&error) => return Connection::HalfWritten,
            Ok(_) | Err(_) => return Connection::Over,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Answers, then reads the body away. An upgrade is the one way to a connection that does not drop the body's reader; it
/// answers in its own words, so it gets an interim status to say, and the real answer follows.
fn refuse(request: Request, bytes: &[u8]) -> Connection {
    let length = request.body_length();
    let mut stream = request.upgrade("none", Response::empty(100));
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut connection = write_blocking(&mut *stream, bytes);
    if length.is_some_and(|length| length > MAX_DRAIN) {
        // Dropping the reader, which also happens at the end of what it reads, would make tiny_http allocate all that the
        // client said it would send, and end the process.
        std::mem::forget(stream);
        return Connection::Over;
    }
    let mut buffer = [0; 8 * 1024];
    let mut total = 0;
    while connection == Connection::Good && length != Some(total) && total < MAX_DRAIN && Instant::now() < deadline {
        match stream.read(&mut buffer) {
            // A chunked body ends here; one with a length was broken off.
            Ok(0) if length.is_none() => return Connection::Good,
            Ok(count) if count > 0 => total += count,
            // Nothing came for as long as a read may take.
            Err(error) if is_full(&error) => {}
            Ok(_) | Err(_) => connection = Connection::Over,
        }
    }
    if connection == Connection::Over || length == Some(total) {
        return connection;
    }
    // Dropping it would wait for the rest, however long that takes. Nothing more is read from this connection.
    std::mem::forget(stream);
    Connection::Over
}

/// Keeps a request with its thread and its connection: to drop it could end the process.
fn leak(request: Request) {
    std::mem::forget(request);
}

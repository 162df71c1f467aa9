//! Answers leave. Most in one write from the loop; what could make the loop wait leaves from a thread of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Cursor, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{Request, Response};

use super::body::{Rest, drain, leak};

/// Sends answers.
#[derive(Default)]
pub struct Sender {
    /// Clients that did not read their last answer: whatever came now would be the middle of another.
    stalled: RefCell<HashMap<SocketAddr, Instant>>,
    elsewhere: Arc<Mutex<Elsewhere>>,
}

/// Answers that threads are writing.
#[derive(Default)]
struct Elsewhere {
    threads: usize,
    /// Answers of one connection leave in order, so one that follows such an answer must not wait in the loop.
    peers: HashMap<SocketAddr, usize>,
}

/// Why an answer did not get through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientGone;

/// What fits into the socket's buffer for sure, and is written by the loop.
const SMALL: usize = 64 * 1024;
const MOST_THREADS: usize = 64;
const MOST_STALLED: usize = 1024;
/// After this long an address and port may belong to somebody else.
const STALLED_FOR: Duration = Duration::from_secs(30);

impl Sender {
    /// Sends the bytes of an answer. The request's body must have been read.
    ///
    /// # Errors
    ///
    /// The client has left, or does not read.
    pub fn send(&self, request: Request, bytes: &[u8]) -> Result<(), ClientGone> {
        let peer = request.remote_addr().copied();
        if peer.is_some_and(|peer| self.is_stalled(peer)) {
            drop(request.into_writer());
            return Err(ClientGone);
        }
        if bytes.len() > SMALL || self.is_busy_elsewhere(peer) {
            let bytes = bytes.to_vec();
            return self.on_a_thread(request, move |request| {
                let _ = write(request, &bytes);
            });
        }
        write(request, bytes).map_err(|kind| {
            if let (Some(peer), ErrorKind::WouldBlock | ErrorKind::TimedOut) = (peer, kind) {
                self.remember_stalled(peer);
            }
            ClientGone
        })
    }

    /// Answers a request whose body nobody wants.
    ///
    /// # Errors
    ///
    /// There is no thread to do it.
    pub fn refuse(
        &self,
        request: Request,
        rest: Rest,
        response: Response<Cursor<Vec<u8>>>,
        bytes: &[u8],
    ) -> Result<(), ClientGone> {
        let bytes = if rest == Rest::Leak { bytes.to_vec() } else { Vec::new() };
        self.on_a_thread(request, move |mut request| match rest {
            Rest::None | Rest::Drain => {
                let _ = request.respond(response);
            }
            Rest::DrainFirst if drain(&mut request) => {
                let _ = request.respond(response);
            }
            Rest::DrainFirst => leak(request),
            // The one way to the connection that does not drop the body's reader is an upgrade. It answers in its own
            // words and without a body, so it gets an interim status to say, and the real answer follows.
            Rest::Leak => {
                let mut stream = request.upgrade("none", Response::empty(100));
                let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
                std::mem::forget(stream);
            }
        })
    }

    /// Whether answers are still being written.
    #[must_use]
    pub fn are_pending(&self) -> bool {
        lock(&self.elsewhere).threads > 0
    }

    fn on_a_thread(&self, request: Request, work: impl FnOnce(Request) + Send + 'static) -> Result<(), ClientGone> {
        let peer = request.remote_addr().copied();
        if !self.enter(peer) {
            leak(request);
            return Err(ClientGone);
        }
        // A request that is dropped reads its body, so a thread that does not start must not take it along.
        let slot = Arc::new(Mutex::new(Some(request)));
        let (for_thread, elsewhere) = (Arc::clone(&slot), Arc::clone(&self.elsewhere));
        let started = thread::Builder::new().name("answer".to_owned()).spawn(move || {
            if let Some(request) = lock(&for_thread).take() {
                work(request);
            }
            lock(&elsewhere).leave(peer);
        });
        if started.is_ok() {
            return Ok(());
        }
        lock(&self.elsewhere).leave(peer);
        if let Some(request) = lock(&slot).take() {
            leak(request);
        }
        Err(ClientGone)
    }

    fn enter(&self, peer: Option<SocketAddr>) -> bool {
        let mut elsewhere = lock(&self.elsewhere);
        if elsewhere.threads == MOST_THREADS {
            return false;
        }
        elsewhere.threads += 1;
        if let Some(peer) = peer {
            *elsewhere.peers.entry(peer).or_default() += 1;
        }
        true
    }

    fn is_busy_elsewhere(&self, peer: Option<SocketAddr>) -> bool {
        let elsewhere = lock(&self.elsewhere);
        elsewhere.threads > 0 && peer.is_some_and(|peer| elsewhere.peers.contains_key(&peer))
    }

    fn is_stalled(&self, peer: SocketAddr) -> bool {
        let stalled = self.stalled.borrow();
        stalled.get(&peer).is_some_and(|since| since.elapsed() < STALLED_FOR)
    }

    fn remember_stalled(&self, peer: SocketAddr) {
        let mut stalled = self.stalled.borrow_mut();
        if stalled.len() == MOST_STALLED {
            stalled.retain(|_, since| since.elapsed() < STALLED_FOR);
        }
        if stalled.len() < MOST_STALLED {
            stalled.insert(peer, Instant::now());
        }
    }
}

impl Elsewhere {
    fn leave(&mut self, peer: Option<SocketAddr>) {
        self.threads -= 1;
        let Some(peer) = peer else { return };
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }
}

/// Head and body in one write: in two, the second would wait for the client to acknowledge the first.
fn write(request: Request, bytes: &[u8]) -> Result<(), ErrorKind> {
    let mut writer = request.into_writer();
    writer.write_all(bytes).and_then(|()| writer.flush()).map_err(|error| error.kind())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The clients that are connected: the requests of each that wait for the loop, and what is being
//! done for it.
//!
//! tiny_http has one queue for the requests of all connections. Here each client has a queue of its
//! own, and the loop answers one request of each client in turn. A client that has sent many
//! requests at once delays itself, not the others.
//!
//! A client is named by its address, because that is all that tiny_http tells about a connection.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::Socket;
use tiny_http::Request;

use super::body::BodyKind;
use super::closing::{ClosedConnections, Reason};
use super::send::{discard, leak};
use super::servers::Servers;
use super::ticket::{QueuedRequest, Stream, Ticket};
use crate::sync::lock;

/// Queues of requests, one for each client.
#[derive(Default)]
pub struct Peers {
    state: Mutex<State>,
    /// True if there is a keeper.
    has_keeper: AtomicBool,
    /// Number of requests so far.
    requests: AtomicU64,
    /// Streams that the keeper is to drop once their connections are closed.
    to_drop: Mutex<Vec<(Ticket, Stream, Instant)>>,
    closed: ClosedConnections,
    /// True once a client gets no more responses.
    has_unanswered: AtomicBool,
}

#[derive(Default)]
struct State {
    peers: HashMap<SocketAddr, Peer>,
    /// Clients with waiting requests, in the order in which the loop answers them.
    turns: VecDeque<SocketAddr>,
    /// Number of waiting requests of all clients.
    waiting: usize,
    /// True while the loop waits for a request. It takes every request itself then.
    loop_waits: bool,
    failure: Option<io::Error>,
}

/// State of one client.
#[derive(Default)]
pub(super) struct Peer {
    waiting: VecDeque<Request>,
    /// Number of requests that were queued so far.
    pub(super) received: u64,
    /// Number of requests that wait or are being answered.
    pub(super) busy: usize,
    /// The body that a thread is reading, with the time at which it began.
    pub(super) body: Option<(BodyKind, Instant)>,
    /// Reason why its requests are discarded, with the time of the last one.
    given_up: Option<(Reason, Instant)>,
    /// Number of requests that were discarded.
    discarded: usize,
    /// True once its connection has been closed for that reason.
    is_closed: bool,
    /// True if no other response can follow: half of one may be on its connection, or an unread
    /// body.
    gets_no_response: bool,
    /// Time of the last response, while the keeper has not found the connection.
    left_at: Option<Instant>,
    /// Its connection, once the keeper has found it.
    socket: Option<Arc<Socket>>,
    /// True if the keeper has found it, and it has ended.
    has_ended: bool,
}

/// Maximum number of waiting requests of one client.
const MAX_REQUESTS: usize = 64;
/// The same, while very many requests wait.
const MAX_REQUESTS_CROWDED: usize = 4;
/// Number of discarded requests after which a connection is closed, once it had a response. Until then
/// its client gets the responses to the requests that wait.
const MAX_DISCARDED_REQUESTS: usize = 64;
/// Maximum number of requests that are collected at once. A flood may come as fast as it is
/// collected, and the loop must answer meanwhile.
const MAX_COLLECTED: usize = 256;
/// Number of waiting requests of all clients that counts as very many.
const CROWD: usize = 2048;
/// Number of clients that are remembered when there is no keeper.
const MAX_PEERS: usize = 4096;
/// Time within which the keeper finds a new connection.
pub(super) const FIND_WITHIN: Duration = Duration::from_millis(200);
/// Time after which the receive timeout has closed a connection without requests.
const FORGET_AFTER: Duration = Duration::from_secs(6);

impl Peers {
    /// Takes the requests that tiny_http has received, at most `MAX_COLLECTED`. Returns true if
    /// there may be more. The lock is held meanwhile: requests of one connection must be queued in
    /// the order in which they came.
    pub(super) fn collect(&self, servers: &Servers) -> bool {
        self.collect_into(&mut lock(&self.state), servers)
    }

    /// The same, in place of a loop that is still answering a request. Returns true if the loop
    /// must be woken afterwards.
    pub(super) fn collect_for_loop(&self, servers: &Servers) -> bool {
        let mut state = lock(&self.state);
        if state.loop_waits {
            return false;
        }
        self.collect_into(&mut state, servers);
        // Even without a request: a message that was to wake the loop may have been taken.
        true
    }

    /// Waits for a request, or until another thread wakes the loop, at most so long.
    pub(super) fn wait(&self, servers: &Servers, most: Option<Duration>) {
        let Some(server) = servers.current() else { return };
        lock(&self.state).loop_waits = true;
        let result = match most {
            Some(most) => server.recv_timeout(most).transpose(),
            None => Some(server.recv()),
        };
        let mut state = lock(&self.state);
        state.loop_waits = false;
        let Some(result) = result else { return };
        match result {
            Ok(request) => self.push(&mut state, request),
            // The error that `unblock` causes; errors of `accept` are of another kind.
            Err(error) if error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none() => {}
            Err(error) => state.failure = Some(error),
        }
    }

    /// Queues a request of a retired server.
    pub(super) fn forward(&self, request: Request) {
        self.push(&mut lock(&self.state), request);
    }

    /// Calls `change` while no request is being collected.
    pub(super) fn without_collecting<T>(&self, change: impl FnOnce() -> T) -> T {
        let _state = lock(&self.state);
        change()
    }

    /// The error that ended the thread which accepts connections.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        lock(&self.state).failure.take()
    }

    /// The next request to answer.
    pub(super) fn pop(self: &Arc<Self>) -> Option<QueuedRequest> {
        let mut state = lock(&self.state);
        let address = state.turns.pop_front()?;
        let peer = state.peers.get_mut(&address)?;
        let request = peer.waiting.pop_front()?;
        let has_more = !peer.waiting.is_empty();
        state.waiting -= 1;
        if has_more {
            state.turns.push_back(address);
        }
        Some(QueuedRequest { request, ticket: Ticket::new(Arc::clone(self), address) })
    }

    /// Number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// True if a request waits or is being answered.
    pub(super) fn is_busy(&self) -> bool {
        lock(&self.state).peers.values().any(|peer| peer.busy > 0)
    }

    /// A keeper introduces connections from now on.
    pub(super) fn set_keeper(&self) {
        self.has_keeper.store(true, Ordering::Relaxed);
    }

    /// True if there is a keeper.
    pub(super) fn has_keeper(&self) -> bool {
        self.has_keeper.load(Ordering::Relaxed)
    }

    /// Closes the connections of streams that are to be dropped, and drops these. A reader that is
    /// dropped allocates as much as is left of the body, then learns that the connection is closed.
    /// In the keeper's thread this memory is used again and again; in other threads it would be
    /// allocated for each.
    pub(super) fn drop_streams(&self) {
        let streams = std::mem::take(&mut *lock(&self.to_drop));
        for (ticket, stream, since) in streams {
            match self.socket(ticket.address()) {
                (Some(_), _) => self.close_now(ticket.address()),
                (None, true) => {}
                (None, false) if since.elapsed() < FIND_WITHIN * 5 => {
                    lock(&self.to_drop).push((ticket, stream, since));
                    continue;
                }
                (None, false) => leak(stream),
            }
        }
    }

    /// Introduces the connection of a client.
    pub(super) fn connected(&self, address: SocketAddr, socket: &Arc<Socket>) {
        let mut state = lock(&self.state);
        let peer = state.peers.entry(address).or_default();
        if peer.has_ended || peer.socket.is_some() {
            peer.begin_connection();
        }
        (peer.socket, peer.has_ended, peer.is_closed) = (Some(Arc::clone(socket)), false, false);
        if peer.busy == 0 || peer.is_flooding() {
            self.close_given_up(peer);
        }
    }

    /// The connection of a client has ended. Requests that it had sent are still answered, so that
    /// their traces say that the client has gone.
    pub(super) fn disconnected(&self, address: SocketAddr, socket: &Arc<Socket>) {
        let mut state = lock(&self.state);
        let Some(peer) = state.peers.get_mut(&address) else { return };
        if peer.socket.as_ref().is_some_and(|other| Arc::ptr_eq(other, socket)) {
            (peer.socket, peer.has_ended) = (None, true);
            if peer.busy == 0 && peer.given_up.is_none() {
                state.peers.remove(&address);
            }
        }
    }

    /// Forgets clients whose connections have ended.
    pub(super) fn forget_old(&self) {
        lock(&self.state).forget_old();
    }

    /// Calls `look` with the state of a client; with that of a new one if it has sent no request.
    pub(super) fn with<T>(&self, address: SocketAddr, look: impl FnOnce(&Peer) -> T) -> T {
        match lock(&self.state).peers.get(&address) {
            Some(peer) => look(peer),
            None => look(&Peer::default()),
        }
    }

    /// False if no response can follow on the connection of a client.
    pub(super) fn may_be_answered(&self, address: SocketAddr) -> bool {
        // Nearly always no client is looked up.
        !self.has_unanswered.load(Ordering::Acquire) || self.with(address, |peer| !peer.gets_no_response)
    }

    /// The connection of a client, if the keeper has found it; and true if it has ended since.
    pub(super) fn socket(&self, address: SocketAddr) -> (Option<Arc<Socket>>, bool) {
        self.with(address, |peer| (peer.socket.clone(), peer.has_ended))
    }

    /// Keeps the stream of a request until [`Self::drop_streams`] drops it.
    pub(super) fn drop_soon(&self, ticket: Ticket, stream: Stream) {
        lock(&self.to_drop).push((ticket, stream, Instant::now()));
    }

    /// Connections that were closed.
    pub(super) fn closed(&self) -> &ClosedConnections {
        &self.closed
    }

    fn collect_into(&self, state: &mut State, servers: &Servers) -> bool {
        let Some(server) = servers.current() else { return false };
        for _ in 0..MAX_COLLECTED {
            match server.try_recv() {
                Ok(Some(request)) => self.push(state, request),
                Ok(None) => return false,
                Err(error) => state.failure = Some(error),
            }
        }
        true
    }

    fn push(&self, state: &mut State, request: Request) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(address) = request.remote_addr().copied() else { return discard(request) };
        if state.peers.len() >= MAX_PEERS {
            state.forget_old();
        }
        let peer = state.peers.entry(address).or_default();
        if peer.has_ended {
            peer.begin_connection();
        }
        let limit = if state.waiting < CROWD { MAX_REQUESTS } else { MAX_REQUESTS_CROWDED };
        if peer.waiting.len() >= limit && peer.given_up.is_none() {
            peer.given_up = Some((Reason::Pipelining, Instant::now()));
        }
        if let Some((_, at)) = &mut peer.given_up {
            *at = Instant::now();
            peer.discarded += 1;
            if peer.is_flooding() {
                self.close_given_up(peer);
            }
            return discard(request);
        }
        peer.received += 1;
        peer.busy += 1;
        peer.waiting.push_back(request);
        if peer.waiting.len() == 1 {
            state.turns.push_back(address);
        }
        state.waiting += 1;
    }

    /// Discards all further requests of a client. Its connection is closed as soon as the responses
    /// that are being sent have been sent.
    pub(super) fn give_up(&self, address: SocketAddr, reason: Reason) {
        let mut state = lock(&self.state);
        let peer = state.peers.entry(address).or_default();
        peer.given_up.get_or_insert_with(|| (reason, Instant::now()));
        if reason == Reason::NotReading {
            peer.gets_no_response = true;
            self.has_unanswered.store(true, Ordering::Release);
        }
    }

    /// Closes the connection of a client that was given up, also while it is busy.
    fn close_now(&self, address: SocketAddr) {
        if let Some(peer) = lock(&self.state).peers.get_mut(&address) {
            self.close_given_up(peer);
        }
    }

    /// Closes the connection of a client that was given up, if the keeper has found it.
    fn close_given_up(&self, peer: &mut Peer) {
        if let (Some(socket), Some((reason, _)), false) = (&peer.socket, peer.given_up, peer.is_closed) {
            self.closed.close(socket, reason);
            peer.is_closed = true;
        }
    }

    /// A request of a client has been answered.
    pub(super) fn answered(&self, address: SocketAddr) {
        let mut state = lock(&self.state);
        let Some(peer) = state.peers.get_mut(&address) else { return };
        peer.busy = peer.busy.saturating_sub(1);
        peer.body = None;
        if peer.is_flooding() {
            self.close_given_up(peer);
        }
        if peer.busy > 0 {
            return;
        }
        match (&peer.socket, peer.given_up) {
            (Some(_), Some(_)) => self.close_given_up(peer),
            // The keeper has not found the connection yet. Its requests count when it does.
            (None, None) if self.has_keeper.load(Ordering::Relaxed) => {
                peer.waiting = VecDeque::new();
                peer.left_at = Some(Instant::now());
            }
            (None, None) => drop(state.peers.remove(&address)),
            (Some(_), None) | (None, Some(_)) => {}
        }
    }

    /// A thread begins to read a body of a client.
    pub(super) fn body_begins(&self, address: SocketAddr, kind: BodyKind) {
        if let Some(peer) = lock(&self.state).peers.get_mut(&address) {
            peer.body = Some((kind, Instant::now()));
        }
    }
}

impl State {
    /// Forgets clients that were given up and whose connections must have ended, and those whose
    /// connections ended before the keeper could find them.
    fn forget_old(&mut self) {
        let now = Instant::now();
        self.peers.retain(|_, peer| {
            let is_over = match (peer.given_up, peer.left_at) {
                (Some((_, at)), _) => now - at > FORGET_AFTER,
                (None, Some(at)) => now - at > FIND_WITHIN,
                (None, None) => false,
            };
            !(is_over && peer.busy == 0 && peer.socket.is_none())
        });
    }
}

impl Peer {
    /// True if it has sent too many requests for responses to all that wait, and had one.
    fn is_flooding(&self) -> bool {
        self.discarded >= MAX_DISCARDED_REQUESTS && self.received > self.busy as u64
    }

    /// A connection has ended, and another one has the same address: systems use a port again. It is
    /// not given up, because it may be another client. (A late request of the first connection does
    /// this too. It is answered, and the response goes nowhere.)
    fn begin_connection(&mut self) {
        (self.given_up, self.discarded, self.is_closed, self.gets_no_response) = (None, 0, false, false);
        self.has_ended = false;
    }

    /// The body that is to be read next: by a thread, or when the loop comes to its request.
    pub(super) fn next_body(&self) -> Option<BodyKind> {
        let waiting = || self.waiting.back().and_then(BodyKind::of);
        self.body.map(|(kind, _)| kind).or_else(waiting)
    }
}

#[cfg(test)]
mod tests {
    use tiny_http::TestRequest;

    use super::*;

    fn push(peers: &Peers, port: u16, path: &str) {
        let request = TestRequest::new().with_remote_addr(([127, 0, 0, 1], port).into()).with_path(path);
        peers.push(&mut lock(&peers.state), request.into());
    }

    fn pop(peers: &Arc<Peers>) -> Option<String> {
        peers.pop().map(|queued| format!("{}{}", queued.ticket.address().port(), queued.request.url()))
    }

    #[test]
    fn each_client_gets_one_response_in_turn_and_its_own_in_order() {
        let peers = Arc::<Peers>::default();
        for (port, path) in [(1, "/a"), (1, "/b"), (1, "/c"), (2, "/a"), (3, "/a"), (2, "/b")] {
            push(&peers, port, path);
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&peers)).collect();
        assert_eq!(order, ["1/a", "2/a", "3/a", "1/b", "2/b", "1/c"]);
    }

    #[test]
    fn a_client_with_too_many_waiting_requests_gets_those_that_wait_and_no_more() {
        let peers = Arc::<Peers>::default();
        for number in 0..MAX_REQUESTS + 10 {
            push(&peers, 1, &format!("/{number}"));
        }
        for number in 0..MAX_REQUESTS {
            assert_eq!(pop(&peers), Some(format!("1/{number}")));
        }
        push(&peers, 1, "/late");
        assert_eq!(pop(&peers), None);
    }

    #[test]
    fn a_client_on_the_port_of_one_that_was_given_up_is_served() {
        let peers = Arc::<Peers>::default();
        let address = ([127, 0, 0, 1], 1).into();
        let socket = || Arc::new(Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket"));
        let first = socket();
        peers.connected(address, &first);
        peers.give_up(address, Reason::NotReading);
        push(&peers, 1, "/discarded");
        assert_eq!(pop(&peers), None);
        peers.disconnected(address, &first);
        // The loop may be faster than the keeper, or slower.
        push(&peers, 1, "/before");
        assert_eq!(pop(&peers), Some("1/before".to_owned()));
        peers.connected(address, &socket());
        push(&peers, 1, "/after");
        assert_eq!(pop(&peers), Some("1/after".to_owned()));
        assert!(peers.may_be_answered(address) && peers.closed().count(Reason::NotReading) == 0);
    }

    #[test]
    fn a_client_is_busy_until_its_response_is_sent_and_forgotten_then() {
        let peers = Arc::<Peers>::default();
        push(&peers, 1, "/");
        assert!(peers.is_busy());
        let queued = peers.pop();
        assert!(queued.is_some() && peers.is_busy());
        drop(queued);
        assert!(!peers.is_busy() && lock(&peers.state).peers.is_empty());
    }
}

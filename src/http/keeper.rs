//! The keeper: a thread that knows every accepted connection, and closes those that harm others.
//!
//! tiny_http has a thread and two descriptors for each connection, no limit of their number, and no
//! limit of a head's size. It also keeps its connections to itself. The keeper finds them in
//! `/proc/self/fd` and holds a duplicate of each, so that it can look at them and shut them down.
//! A look is one `poll` of all connections and one listing of the descriptors.
//!
//! | it closes a connection | when |
//! |---|---|
//! | without a request | 10 s after it was accepted (`FIRST_REQUEST`) |
//! | that is kept alive | 75 s after its last response (`IDLE`) |
//! | that sends, but no request comes of it | after 4 looks in a row with more unread input than a head, or 32 looks with any |
//! | of too many | the one that has been idle longest, busy ones last |
//! | with too many waiting requests | after the responses to those that wait (`peers.rs`) |
//! | without a request under way | while memory grows fast, or if its thread is needed for another one |
//! | that does not read its responses | when an outbox gives it up (`send.rs`) |
//!
//! A body has its own time limit (`body.rs`), after which the keeper ends the reading. A connection
//! whose request is being answered is never idle.
//!
//! Where there is no `/proc` there is no keeper, and the receive timeout alone ends connections.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use filedescriptor::FileDescriptor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, readlinkat};
use rustix::io::ioctl_fionread;
use socket2::Socket;

use super::body::{BodyKind, TIMEOUT as BODY_TIMEOUT};
use super::closing::Reason;
use super::listener::Waker;
use super::panics::accept_panicked;
use super::peers::Peers;
use super::process::{Process, descriptor_limit, threads_and_memory};

/// Time for the first request of a connection. A browser that connects in advance connects again.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Time for the next request. nginx and the load balancers of AWS keep connections to a server for
/// 60 s. If the server closes such a connection first, a request may be lost.
pub(super) const IDLE: Duration = Duration::from_secs(75);
/// Time in which the first request of a connection is probably on its way.
const FRESH: Duration = Duration::from_millis(250);
/// The same when the process is about to renew itself. Meanwhile new clients wait.
const FRESH_AT_RENEWAL: Duration = Duration::from_millis(25);
/// Time for tiny_http to notice that a client has closed its connection.
const NOTICE: Duration = Duration::from_secs(1);
/// Number of looks in a row with more unread input than a head, and other than at the look before,
/// without a request, that make a client greedy. One that sends a chunked body may still have to
/// read why it was refused.
const GREEDY_IN_A_ROW: u32 = 4;
const GREEDY_IN_A_ROW_CHUNKED: u32 = 8;
/// Number of unread bytes that no head has.
const LONGEST_HEAD: u64 = 16 * 1024;
/// The same, not in a row, with any unread input.
const GREEDY_IN_ALL: u32 = 32;
/// Maximum number of connections, whatever the limit of descriptors.
const MAX_CONNECTIONS: usize = 1024;
const MIN_CONNECTIONS: usize = 8;
/// A sixth of the descriptors: each connection needs three, and half of all are for the rest.
const DESCRIPTORS_PER_CONNECTION: usize = 6;
/// Time after which a busy connection is waiting for its client.
const SLOW: Duration = Duration::from_secs(1);
/// Time between looks while descriptors are scarce, while input is unread or connections are opened,
/// and otherwise. In the last time an endless head may take some 10 MB.
const HURRIED_LOOK: Duration = Duration::from_millis(1);
const BUSY_LOOK: Duration = Duration::from_millis(5);
const QUIET_LOOK: Duration = Duration::from_millis(25);
/// Time after which a connection with unread input may be waiting for a thread.
const STUCK: Duration = Duration::from_millis(8);
/// Time for a thread to end its connection and to take the next one.
const THREAD_TIME: Duration = Duration::from_millis(2);
/// Time between checks of memory, while there are connections.
const MEMORY_CHECK: Duration = Duration::from_millis(100);
/// Growth of the resident memory, in kB, within one or two of these times, at which connections
/// that have sent no request for a tenth of a second are closed, and at which all without a request
/// under way are. If the queues of the backends fill so fast, these clients must connect again.
const GROWTH: u64 = 12 * 1024;
const MAX_GROWTH: u64 = 32 * 1024;
const GROWTH_TIME: Duration = Duration::from_secs(30);
/// Time between checks of threads and memory.
const SLOW_CHECK: Duration = Duration::from_secs(1);
/// The keeper sleeps at least so many times longer than it works, unless it is in a hurry.
const REST: u32 = 5;

/// Starts the keeper of the connections to `port`, if the system allows one.
///
/// # Errors
///
/// The system cannot start another thread.
pub(super) fn start(
    waker: Waker,
    peers: Arc<Peers>,
    process: Arc<Process>,
    listening: Socket,
    port: u16,
) -> io::Result<()> {
    let Ok(listing) = list_descriptors() else { return Ok(()) };
    let mut keeper = Keeper {
        listing,
        listening,
        port,
        waker,
        peers,
        process,
        connections: HashMap::new(),
        owners: HashMap::new(),
        ended: HashMap::new(),
        generations: [0; 2],
        foreign: HashSet::new(),
        next_thread: Instant::now(),
        exhausted_since: None,
        next_slow_check: Instant::now() + SLOW_CHECK,
        next_memory_check: Instant::now(),
        least_memory: [u64::MAX; 2],
        growth_ends: Instant::now() + GROWTH_TIME,
    };
    keeper.peers.set_keeper();
    thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        loop {
            let began = Instant::now();
            let pause = keeper.look(began);
            let rest = if pause == HURRIED_LOOK { 0 } else { REST };
            let pause = pause.max(began.elapsed() * rest);
            if pause < QUIET_LOOK {
                thread::sleep(pause);
            } else {
                keeper.wait_for_connection(pause);
            }
        }
    })?;
    Ok(())
}

/// True if the system allows a keeper.
pub(super) fn is_possible() -> bool {
    list_descriptors().is_ok()
}

struct Keeper {
    listing: Dir,
    listening: Socket,
    port: u16,
    waker: Waker,
    peers: Arc<Peers>,
    process: Arc<Process>,
    /// Open connections by inode.
    connections: HashMap<u64, Connection>,
    /// Descriptors whose inode is known.
    owners: HashMap<RawFd, u64>,
    /// Connections that have ended, by inode, while tiny_http still holds them.
    ended: HashMap<u64, Ended>,
    /// Numbers of retired servers at the beginnings of the last look and of this one. A connection
    /// that is found now was accepted after the first.
    generations: [usize; 2],
    /// Sockets that are no connections of clients.
    foreign: HashSet<u64>,
    /// Time until which no other connection is closed to free a thread.
    next_thread: Instant,
    /// Time since which descriptors have been exhausted.
    exhausted_since: Option<Instant>,
    /// Time of the next check of threads and memory.
    next_slow_check: Instant,
    /// Time of the next check of memory alone.
    next_memory_check: Instant,
    /// Least memory in this growth time and in the one before, and the end of this one.
    least_memory: [u64; 2],
    growth_ends: Instant,
}

#[derive(Clone, Copy)]
struct Ended {
    at: Instant,
    generation: usize,
}

struct Connection {
    /// Number of retired servers when it was accepted, or less.
    generation: usize,
    address: SocketAddr,
    socket: Arc<Socket>,
    /// Time at which it was accepted, or last busy.
    since: Instant,
    /// Number of its requests.
    received: u64,
    busy: bool,
    /// Time since which it has been busy at every look.
    busy_since: Option<Instant>,
    /// Looks with other unread input since the last request: the last ones in a row, and all.
    in_a_row: u32,
    in_all: u32,
    /// Time since which there has been unread input without a request.
    unread_since: Option<Instant>,
    /// Number of unread bytes at the last count, and its time.
    unread: u64,
    counted_at: Instant,
    /// Time at which the client was first seen to have closed its side.
    closed_by_client: Option<Instant>,
}

impl Keeper {
    /// Looks at all connections once. Returns the time until the next look.
    fn look(&mut self, now: Instant) -> Duration {
        // While the loop is busy, requests must not pile up in tiny_http's queue.
        if self.peers.collect_for_loop(self.waker.servers()) {
            self.waker.wake();
        }
        self.peers.drop_streams();
        if self.waker.is_closing() {
            self.close_all();
        }
        self.generations[1] = self.waker.servers().generation();
        let (has_input, is_stuck) = self.check(now);
        let closed_before = self.peers.closed().count(Reason::OverCap);
        let has_new = self.discover(now).unwrap_or(true);
        let is_crowded = self.peers.closed().count(Reason::OverCap) > closed_before;
        self.process.connections.store(self.connections.len(), Ordering::Relaxed);
        let fresh = self.connections.values().filter(|it| it.is_fresh(now, FRESH_AT_RENEWAL)).count();
        self.process.fresh.store(fresh, Ordering::Relaxed);
        self.process.looks.fetch_add(1, Ordering::Release);
        if accept_panicked() {
            self.waker.wake();
        }
        // Where another server could take over, descriptors had become free.
        let since = self.exhausted_since.filter(|_| self.generations[0] == self.generations[1]);
        self.exhausted_since = self.process.is_exhausted().then(|| since.unwrap_or(now));
        let exhausted = self.exhausted_since.map_or(Duration::ZERO, |since| now - since);
        let slow = || (now >= self.next_slow_check).then(|| self.process.slow_renewal_cause()).flatten();
        if let Some(cause) = self.process.renewal_cause(exhausted).or_else(slow) {
            self.waker.renew(cause);
        }
        if now >= self.next_slow_check {
            self.next_slow_check = now + SLOW_CHECK;
        }
        if now >= self.next_memory_check && !self.connections.is_empty() {
            self.next_memory_check = now + MEMORY_CHECK;
            self.relieve(now);
        }
        if is_stuck {
            self.waker.has_unread_input();
        }
        if self.process.is_tight() || is_crowded || self.waker.servers().is_down() {
            HURRIED_LOOK
        } else if has_input || has_new || self.waker.is_paused() {
            BUSY_LOOK
        } else {
            QUIET_LOOK
        }
    }

    /// Waits until a connection arrives, or for this time. The thread that accepts may be faster: then
    /// the connection is found after this time.
    fn wait_for_connection(&self, most: Duration) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(most.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.listening, PollFlags::IN)], Some(&timeout));
        thread::sleep(HURRIED_LOOK);
    }

    /// Forgets the connections that have ended, and closes those that must be closed. Returns whether
    /// there is a connection with unread input, and whether one has waited long to be read.
    fn check(&mut self, now: Instant) -> (bool, bool) {
        let inodes: Vec<u64> = self.connections.keys().copied().collect();
        let states = self.poll(&inodes);
        let (mut has_input, mut is_stuck, mut stuck_without_ticks) = (false, false, None);
        // No tick reaches the threads of a server that accepts no more, and there are none while
        // descriptors are scarce.
        let has_ticks = !self.waker.servers().is_down() && !self.process.is_tight();
        let first_with_ticks = self.generations[1] + usize::from(!has_ticks);
        for (inode, state) in inodes.into_iter().zip(states) {
            let Some(connection) = self.connections.get_mut(&inode) else { continue };
            if state.intersects(PollFlags::HUP | PollFlags::ERR) {
                self.peers.disconnected(connection.address, &connection.socket);
                let generation = connection.generation;
                self.connections.remove(&inode);
                self.ended.insert(inode, Ended { at: now, generation });
                continue;
            }
            let verdict = connection.verdict(&self.peers, state, now);
            has_input |= connection.unread_since.is_some();
            if connection.unread_since.is_some_and(|since| now - since > STUCK) {
                is_stuck = true;
                // The body of a request that is under way waits for the loop or a reader.
                if connection.generation < first_with_ticks && !connection.busy {
                    stuck_without_ticks = Some(connection.generation);
                }
            }
            match verdict {
                Verdict::Keep => {}
                Verdict::StopReading => drop(connection.socket.shutdown(Shutdown::Read)),
                Verdict::Close(Some(reason)) => {
                    self.peers.give_up(connection.address, reason);
                    self.peers.closed().close(&connection.socket, reason);
                }
                Verdict::Close(None) => drop(connection.socket.shutdown(Shutdown::Both)),
            }
        }
        // Some were closed while they waited for a thread.
        let waits = |it: &Ended| it.generation < first_with_ticks && (STUCK..NOTICE).contains(&(now - it.at));
        let ended = || self.ended.values().filter(|it| waits(it)).map(|it| it.generation).min();
        if let Some(generation) = stuck_without_ticks.or_else(ended)
            && now >= self.next_thread
        {
            self.next_thread = now + THREAD_TIME;
            // Its thread takes the next one of that server. The number may be too small by one.
            let ended = self.close_oldest(now, |it| {
                (generation..=generation + 1).contains(&it.generation) && !it.busy && it.unread_since.is_none()
            });
            self.ended.extend(ended);
        }
        (has_input, is_stuck)
    }

    /// Closes the connections that have no request under way, while memory grows fast. One of them
    /// may be sending a head without end: tiny_http keeps all of it, and reads it so fast that a
    /// paced one never shows unread input.
    fn relieve(&mut self, now: Instant) {
        let Some((_, memory)) = threads_and_memory() else { return };
        if now >= self.growth_ends {
            self.growth_ends = now + GROWTH_TIME;
            self.least_memory = [u64::MAX, self.least_memory[0]];
        }
        self.least_memory[0] = self.least_memory[0].min(memory);
        let growth = memory - self.least_memory[0].min(self.least_memory[1]);
        if growth < GROWTH {
            return;
        }
        for connection in self.connections.values() {
            // Unread input is a request that waits for a thread, or is noticed as greedy.
            let is_idle =
                !connection.busy && connection.unread_since.is_none() && now - connection.since > MEMORY_CHECK;
            if is_idle && (connection.received == 0 || growth > MAX_GROWTH) {
                self.peers.give_up(connection.address, Reason::Memory);
                self.peers.closed().close(&connection.socket, Reason::Memory);
            }
        }
    }

    fn poll(&self, inodes: &[u64]) -> Vec<PollFlags> {
        let sockets = inodes.iter().map(|inode| &self.connections[inode].socket);
        let mut fds: Vec<PollFd<'_>> =
            sockets.map(|socket| PollFd::new(&**socket, PollFlags::IN | PollFlags::RDHUP)).collect();
        let _ = poll(&mut fds, Some(&Timespec::default()));
        fds.iter().map(PollFd::revents).collect()
    }

    /// Finds new connections, and counts descriptors. Returns true if there are new ones that are
    /// open.
    fn discover(&mut self, now: Instant) -> io::Result<bool> {
        let (mut used, mut leaked, mut has_new, mut has_all) = (0, 0, false, true);
        let (mut ended, mut foreign) = (HashMap::new(), HashSet::new());
        self.listing.rewind();
        while let Some(entry) = self.listing.read() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(fd) = name.to_str().ok().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
            used += 1;
            if self.owners.get(&fd).is_some_and(|inode| self.connections.contains_key(inode)) {
                continue;
            }
            let Some(inode) = socket_inode(&self.listing, name) else { continue };
            if let Some(known) = self.ended.get(&inode) {
                leaked += usize::from(now - known.at > NOTICE);
                ended.insert(inode, *known);
                continue;
            }
            if self.foreign.contains(&inode) {
                foreign.insert(inode);
                continue;
            }
            if self.connections.contains_key(&inode) {
                self.owners.insert(fd, inode);
                continue;
            }
            // If there is no descriptor for a duplicate now, there may be one at the next look.
            let Some(socket) = self.duplicate(fd, now, &mut ended) else {
                has_all = false;
                continue;
            };
            if let Some(connection) = self.accepted(&socket, now) {
                // The ticker's connections are closed at once, and need no room.
                let needs_room = connection.closed_by_client.is_none() || self.process.is_tight();
                while needs_room && self.connections.len() >= max_connections() {
                    ended.extend(self.close_oldest(now, |_| true));
                }
                has_new |= connection.closed_by_client.is_none();
                self.peers.connected(connection.address, &connection.socket);
                self.connections.insert(inode, connection);
                self.owners.insert(fd, inode);
            } else if self.has_ended(&socket) {
                ended.insert(inode, Ended { at: now, generation: self.generations[0] });
            } else {
                foreign.insert(inode);
            }
        }
        (self.ended, self.foreign) = (ended, foreign);
        self.owners.retain(|_, inode| self.connections.contains_key(inode));
        self.process.descriptors.store(used, Ordering::Relaxed);
        self.process.leaked.store(leaked, Ordering::Relaxed);
        if has_all {
            let ended = self.ended.values().map(|ended| ended.generation);
            let connections = self.connections.values().map(|connection| connection.generation);
            self.generations[0] = self.generations[1];
            let oldest = ended.chain(connections).min().unwrap_or(usize::MAX).min(self.generations[0]);
            self.waker.servers().end_before(oldest);
        }
        self.peers.forget_old();
        Ok(has_new)
    }

    /// A duplicate of a descriptor. If none is left for it, the connection that has been idle
    /// longest gives up one now and two soon.
    fn duplicate(&mut self, fd: RawFd, now: Instant, ended: &mut HashMap<u64, Ended>) -> Option<Arc<Socket>> {
        let socket = duplicate(fd).or_else(|| {
            if !self.process.is_tight() {
                return None;
            }
            let (inode, closed) = self.close_oldest(now, |_| true)?;
            ended.insert(inode, closed);
            duplicate(fd)
        });
        socket.map(Arc::new)
    }

    /// The connection of a socket, if it is one that was accepted.
    fn accepted(&self, socket: &Arc<Socket>, now: Instant) -> Option<Connection> {
        let port = socket.local_addr().ok()?.as_socket()?.port();
        let address = socket.peer_addr().ok()?.as_socket()?;
        let mut state = [PollFd::new(&**socket, PollFlags::IN | PollFlags::RDHUP)];
        let _ = poll(&mut state, Some(&Timespec::default()));
        let state = state[0].revents();
        let is_closed = state.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR);
        (port == self.port).then(|| Connection {
            generation: self.generations[0],
            address,
            socket: Arc::clone(socket),
            since: now,
            received: 0,
            busy: false,
            busy_since: None,
            in_a_row: 0,
            in_all: 0,
            unread_since: (state.contains(PollFlags::IN) && !is_closed).then_some(now),
            unread: 0,
            counted_at: now,
            closed_by_client: is_closed.then_some(now),
        })
    }

    /// True if a socket is a connection that ended before it was found.
    fn has_ended(&self, socket: &Socket) -> bool {
        let port = socket.local_addr().ok().and_then(|address| address.as_socket()).map(|address| address.port());
        port == Some(self.port) && socket.peer_addr().is_err() && socket.is_listener().is_ok_and(|is| !is)
    }

    /// Closes all connections, because the process renews itself. Their clients connect again and
    /// wait in the backlog, and do not wait for responses of a process that answers no more.
    fn close_all(&self) {
        for connection in self.connections.values() {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connection that has been idle longest, of the candidates; one that its client has
    /// closed before the others. If all are busy or new, it closes the one that has been busy longest.
    /// Returns its inode.
    fn close_oldest(&mut self, now: Instant, is_candidate: impl Fn(&Connection) -> bool) -> Option<(u64, Ended)> {
        let age = |connection: &Connection| {
            let is_slow = connection.busy_since.is_some_and(|since| now - since > SLOW);
            let is_needed = connection.is_fresh(now, FRESH) || (connection.busy && !is_slow);
            // A request may be waiting for a thread.
            let has_input = connection.unread_since.is_some() && connection.received == 0;
            (
                is_needed,
                is_slow,
                is_needed && has_input,
                connection.closed_by_client.is_none(),
                connection.busy_since.unwrap_or(connection.since),
            )
        };
        let candidates = self.connections.iter().filter(|(_, connection)| is_candidate(connection));
        let oldest = candidates.min_by_key(|(_, connection)| age(connection));
        let inode = oldest.map(|(inode, _)| *inode)?;
        let Connection { address, socket, generation, .. } = self.connections.remove(&inode)?;
        self.peers.closed().close(&socket, Reason::OverCap);
        self.peers.disconnected(address, &socket);
        Some((inode, Ended { at: now, generation }))
    }
}

/// Decision about a connection.
enum Verdict {
    Keep,
    /// The time for the body is over.
    StopReading,
    /// Without a reason if the client has closed it.
    Close(Option<Reason>),
}

impl Connection {
    /// True if it was accepted so recently that its first request may be on its way.
    fn is_fresh(&self, now: Instant, time: Duration) -> bool {
        self.received == 0 && self.closed_by_client.is_none() && now - self.since < time
    }

    fn verdict(&mut self, peers: &Peers, state: PollFlags, now: Instant) -> Verdict {
        let (received, busy, body) = peers.with(self.address, |peer| (peer.received, peer.busy > 0, peer.body));
        self.busy = busy;
        self.busy_since = busy.then(|| self.busy_since.unwrap_or(now));
        if busy || received > self.received {
            self.since = now;
        }
        if received > self.received {
            (self.received, self.in_a_row, self.in_all, self.unread_since) = (received, 0, 0, None);
        }
        if body.is_some_and(|(_, began)| now - began > BODY_TIMEOUT) {
            return Verdict::StopReading;
        }
        if state.contains(PollFlags::RDHUP) {
            let since = *self.closed_by_client.get_or_insert(now);
            let is_noticed = busy || now - since <= NOTICE;
            return if is_noticed { Verdict::Keep } else { Verdict::Close(None) };
        }
        if !state.contains(PollFlags::IN) {
            (self.in_a_row, self.unread, self.unread_since) = (0, 0, None);
        } else if now - self.counted_at >= BUSY_LOOK {
            let unread = ioctl_fionread(&*self.socket).unwrap_or(0);
            let body = peers.with(self.address, |peer| peer.next_body());
            // While the amount stays the same, tiny_http has not come to read it.
            if body != Some(BodyKind::Sized) && unread != self.unread {
                self.in_all += 1;
                self.in_a_row = if unread > LONGEST_HEAD { self.in_a_row + 1 } else { 0 };
            }
            (self.unread, self.counted_at) = (unread, now);
            self.unread_since.get_or_insert(now);
            let limit = if body.is_some() { GREEDY_IN_A_ROW_CHUNKED } else { GREEDY_IN_A_ROW };
            if self.in_a_row >= limit || self.in_all >= GREEDY_IN_ALL {
                return Verdict::Close(Some(Reason::Greedy));
            }
        }
        let limit = if received == 0 { FIRST_REQUEST } else { IDLE };
        if now - self.since > limit { Verdict::Close(Some(Reason::Idle)) } else { Verdict::Keep }
    }
}

fn max_connections() -> usize {
    (descriptor_limit() / DESCRIPTORS_PER_CONNECTION).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// The list of the open descriptors.
fn list_descriptors() -> io::Result<Dir> {
    Ok(Dir::new(OwnedFd::from(File::open("/proc/self/fd")?))?)
}

/// Duplicates a descriptor of this process by its number, without `unsafe`.
fn duplicate(fd: RawFd) -> Option<Socket> {
    let duplicate = FileDescriptor::dup(&fd).ok()?;
    Some(Socket::from(duplicate.as_fd().try_clone_to_owned().ok()?))
}

/// The inode of a socket, by the name of its entry in the list.
fn socket_inode(listing: &Dir, name: &CStr) -> Option<u64> {
    let target = readlinkat(listing.fd().ok()?, name, Vec::new()).ok()?;
    target.to_str().ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

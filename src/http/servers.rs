//! tiny_http's servers: the one that accepts connections, and those that no longer do.
//!
//! The thread in which tiny_http accepts connections ends when there is no descriptor left for the
//! next one. The connections that it has accepted live on. The keeper closes those that are too
//! many. Then another server takes over the listening socket, in the same process; new clients wait
//! in the backlog meanwhile, for some milliseconds.
//!
//! A retired server still receives the requests of its connections. A thread passes them on until
//! the last of these connections has ended.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use socket2::Socket;
use tiny_http::Server;

use super::peers::Peers;
use super::process::TIME_TO_FREE;
use crate::sync::lock;

/// The servers.
pub(super) struct Servers {
    /// `None` until the program is ready. A server accepts connections as soon as it exists, and
    /// could leave no descriptor for what the program opens at start-up.
    current: Mutex<Option<Arc<Server>>>,
    /// Number of servers that have been retired so far.
    generation: AtomicUsize,
    retired: Mutex<Vec<Retired>>,
    /// Time since which no connection is accepted, and the reason.
    failed: Mutex<Option<(Instant, io::Error)>>,
    is_down: AtomicBool,
    socket: Socket,
}

struct Retired {
    generation: usize,
    server: Arc<Server>,
    /// Contains the server once all of its connections have ended. The thread drops it, because
    /// tiny_http connects to its own address then, and may wait.
    to_drop: ToDrop,
}

type ToDrop = Arc<Mutex<Option<Arc<Server>>>>;

/// Maximum number of retired servers whose connections have not all ended.
const MAX_RETIRED: usize = 64;
/// More threads than this do not wake the loop at the same moment.
const MAX_WAKERS: usize = 256;

impl Servers {
    /// Servers of a listening socket. Connections wait in its backlog until [`Self::start`].
    pub(super) fn new(socket: Socket) -> Self {
        let (current, generation, retired, failed, is_down) = Default::default();
        Self { current, generation, retired, failed, is_down, socket }
    }

    /// Starts the first server.
    ///
    /// # Errors
    ///
    /// There is no descriptor or no thread for it.
    pub(super) fn start(&self) -> io::Result<()> {
        *lock(&self.current) = Some(Arc::new(start(&self.socket)?));
        Ok(())
    }

    /// The server that accepts connections, or was the last that did.
    pub(super) fn current(&self) -> Option<Arc<Server>> {
        lock(&self.current).clone()
    }

    /// Number of servers that have been retired so far.
    pub(super) fn generation(&self) -> usize {
        self.generation.load(Ordering::Acquire)
    }

    /// True while no connection is accepted.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// The current server accepts no more connections, for this reason.
    ///
    /// # Errors
    ///
    /// Returns the error if another server would not help.
    pub(super) fn fail(&self, error: io::Error) -> io::Result<()> {
        if !is_out_of_descriptors(&error) {
            return Err(error);
        }
        *lock(&self.failed) = Some((Instant::now(), error));
        self.is_down.store(true, Ordering::Release);
        Ok(())
    }

    /// If no connection is accepted, starts another server as soon as there are enough descriptors.
    /// Only the loop calls this, so it never waits for a retired server. `wake` wakes it when a
    /// retired server has received a request.
    ///
    /// # Errors
    ///
    /// Returns the reason for which the last server failed, if there are too few descriptors for too
    /// long.
    pub(super) fn recover(
        self: &Arc<Self>,
        peers: &Arc<Peers>,
        has_room: bool,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let mut failed = lock(&self.failed);
        let Some((since, error)) = &mut *failed else { return Ok(()) };
        let is_ready = has_room && lock(&self.retired).len() < MAX_RETIRED;
        if is_ready && self.replace(peers, wake).is_ok() {
            log::debug!(target: "accept", "{}; connections waited for {:?}", error, since.elapsed());
            *failed = None;
            self.is_down.store(false, Ordering::Release);
        } else if since.elapsed() > TIME_TO_FREE {
            return Err(std::mem::replace(error, io::ErrorKind::Other.into()));
        }
        Ok(())
    }

    /// Ends the retired servers that are older than this one. All of their connections have ended.
    pub(super) fn end_before(&self, generation: usize) {
        for Retired { server, to_drop, .. } in
            lock(&self.retired).extract_if(.., |retired| retired.generation < generation)
        {
            let mut to_drop = lock(&to_drop);
            // Behind the requests that it has received.
            server.unblock();
            *to_drop = Some(server);
        }
    }

    fn replace(&self, peers: &Arc<Peers>, wake: impl Fn() + Send + 'static) -> io::Result<()> {
        let to_drop = Arc::default();
        // Before the new server: one without this thread would accept connections for nothing.
        let begin = pass_requests_on(Arc::clone(peers), Arc::clone(&to_drop), wake)?;
        let next = Arc::new(start(&self.socket)?);
        let Some(server) = peers.without_collecting(|| lock(&self.current).replace(next)) else { return Ok(()) };
        let generation = self.generation.fetch_add(1, Ordering::AcqRel);
        lock(&self.retired).push(Retired { generation, server: Arc::clone(&server), to_drop });
        // Until now others took requests from this server. Without a receiver there is no thread.
        begin.send(server).map_err(io::Error::other)
    }
}

/// Starts the thread that passes on the requests of a retired server. It begins when it is given the
/// server.
fn pass_requests_on(
    peers: Arc<Peers>,
    to_drop: ToDrop,
    wake: impl Fn() + Send + 'static,
) -> io::Result<mpsc::Sender<Arc<Server>>> {
    let (begin, beginning) = mpsc::channel::<Arc<Server>>();
    thread::Builder::new().name("retired".to_owned()).spawn(move || {
        let Ok(server) = beginning.recv() else { return };
        let last = loop {
            if let Ok(request) = server.recv() {
                peers.forward(request);
                wake();
            }
            if let Some(last) = lock(&to_drop).take() {
                break last;
            }
        };
        // Messages that were to wake the loop may be among the last requests.
        let mut attempts = 0;
        while attempts < MAX_WAKERS {
            match server.try_recv() {
                Ok(Some(request)) => peers.forward(request),
                Ok(None) | Err(_) => attempts += 1,
            }
        }
        wake();
        drop((server, last));
    })?;
    Ok(begin)
}

/// Starts a server. tiny_http panics if there is no thread for it.
fn start(socket: &Socket) -> io::Result<Server> {
    let listener = std::net::TcpListener::from(socket.try_clone()?);
    match catch_unwind(AssertUnwindSafe(|| Server::from_listener(listener, None))) {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("no thread is left")),
    }
}

/// True for errors of `accept` after which the next call may succeed, once descriptors are free.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        [Errno::MFILE, Errno::CONNABORTED].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = error;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    fn no_descriptor() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    /// Sends a request, and returns its client's port once it is queued.
    fn request(stream: &mut TcpStream, servers: &Servers, peers: &Arc<Peers>) -> u16 {
        stream.write_all(GET).expect("it is read");
        loop {
            peers.wait(servers, Some(Duration::from_millis(1)));
            if let Some(queued) = peers.pop() {
                let port = queued.ticket.address().port();
                queued.request.respond(tiny_http::Response::empty(204)).expect("the client reads");
                stream.read_exact(&mut [0; 12]).expect("a response");
                return port;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_of_a_retired_server_are_served_beside_those_of_the_next_until_they_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connect = || TcpStream::connect(address).expect("it listens");
        let servers = Arc::new(Servers::new(Socket::from(listener)));
        servers.start().expect("a server");
        let peers = Arc::<Peers>::default();
        let mut old = connect();
        let port = |stream: &TcpStream| stream.local_addr().expect("an address").port();
        assert_eq!(request(&mut old, &servers, &peers), port(&old));

        servers.fail(no_descriptor()).expect("another server helps");
        servers.recover(&peers, false, || ()).expect("there is time");
        assert!(servers.is_down() && servers.generation() == 0);
        servers.recover(&peers, true, || ()).expect("there is room");
        assert!(!servers.is_down() && servers.generation() == 1);
        // The first server still accepts here, and takes one of the next two connections.
        for stream in [&mut connect(), &mut connect(), &mut old] {
            assert_eq!(request(stream, &servers, &peers), port(stream));
        }

        servers.end_before(0);
        assert_eq!(lock(&servers.retired).len(), 1);
        let server = Arc::downgrade(&lock(&servers.retired)[0].server);
        servers.end_before(1);
        assert!(lock(&servers.retired).is_empty());
        while server.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn another_server_is_not_tried_where_it_would_not_help() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let servers = Arc::new(Servers::new(Socket::from(listener)));
        assert!(servers.fail(io::Error::other("too many threads")).is_err() && !servers.is_down());
        assert!(servers.recover(&Arc::default(), true, || ()).is_ok() && servers.generation() == 0);
    }
}

//! The listening socket, and the ways in which the request loop is woken: a request, a body that was read, new settings,
//! the end.
//!
//! tiny_http would bind a socket by itself; this one is ours because options set on it are inherited by every connection:
//!
//! - `TCP_NODELAY`: without it an answer in two pieces waits 44 ms for the client's delayed acknowledgement;
//! - a send time-out: the loop is never held by a client that does not read;
//! - a receive time-out, so that silent connections end. It would end `accept` too, which the ticker prevents.
//!
//! The ticker connects to our own port many times a second and hangs up. tiny_http's thread pool counts a thread as free
//! until it has woken up; five connections that open together can share four threads, and one of them waits until
//! another connection comes or goes. A browser opens six. The ticker is that other connection: each tick frees one of
//! those that wait, so it is quickest when requests begin to come in.

use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tiny_http::{Request, Server};

use super::panics::{accept_panicked, connection_panics};
use crate::sync::lock;

/// Where requests come from.
pub struct Listener {
    server: Arc<Server>,
    shared: Arc<LoopState>,
    address: SocketAddr,
}

/// What the loop has to do next.
pub enum Next {
    /// Answer this.
    Request(Request),
    /// Look for bodies that were read, and for new settings.
    Wake,
    /// Answer what is left and stop.
    Stop,
    /// Nothing will come any more, for this reason.
    Failed(io::Error),
}

#[derive(Default)]
struct LoopState {
    stopping: AtomicBool,
    /// Requests so far: the ticker runs faster while there are some.
    requests: AtomicU64,
    /// The ticker is asleep, and the next request wakes it.
    idle: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// What the loop may lose to a client that does not read, once a connection; the rest is its outbox's.
const SEND_TIMEOUT: Duration = Duration::from_millis(5);
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
const USER_TIMEOUT: Duration = Duration::from_secs(6);
const SEND_BUFFER: usize = 256 * 1024;
const BACKLOG: i32 = 1024;
const FIRST_TICKS: u32 = 128;
const FIRST_TICK: Duration = Duration::from_millis(1);
const BUSY_TICK: Duration = Duration::from_millis(10);
const IDLE_TICK: Duration = Duration::from_millis(100);
/// So many busy ticks without a request, and the ticker slows down.
const TICKS_TO_IDLE: u32 = 100;

impl Listener {
    /// Listens on `address`, `host:port`; port 0 takes a free one. Every SIGHUP is told to `hangups`.
    ///
    /// # Errors
    ///
    /// The address is none, or is taken.
    pub fn bind(address: &str, hangups: Sender<()>) -> io::Result<Self> {
        let candidates = address.to_socket_addrs()?;
        let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
        for candidate in candidates {
            result = bind(candidate);
            if result.is_ok() {
                break;
            }
        }
        let socket = result?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let for_stop = socket.try_clone()?;
        let server = Server::from_listener(std::net::TcpListener::from(socket), None).map_err(io::Error::other)?;
        let server = Arc::new(server);
        let shared = Arc::new(LoopState::default());
        watch_signals(Arc::clone(&server), Arc::clone(&shared), for_stop, hangups)?;
        tick(address, Arc::clone(&server), Arc::clone(&shared))?;
        Ok(Self { server, shared, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server, to be woken by others.
    #[must_use]
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// Waits for something to do.
    #[must_use]
    pub fn next(&self) -> Next {
        match self.server.recv() {
            Ok(request) => {
                self.shared.requests.fetch_add(1, Ordering::Relaxed);
                if self.shared.idle.swap(false, Ordering::AcqRel) {
                    self.shared.wake.notify_one();
                }
                Next::Request(request)
            }
            Err(_) if self.shared.stopping.load(Ordering::Acquire) => Next::Stop,
            Err(_) if accept_panicked() => {
                Next::Failed(io::Error::other("no descriptor or no thread was left for another one"))
            }
            // What `unblock` leaves behind; an error of `accept` has another kind.
            Err(error) if error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none() => Next::Wake,
            Err(error) => Next::Failed(error),
        }
    }

    /// The next request that has already come in, if there is one.
    #[must_use]
    pub fn next_waiting(&self) -> Option<Request> {
        self.server.try_recv().ok().flatten()
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(30)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The first signal to stop stops the listener, the second one the process. SIGHUP is a wish to read the settings again,
/// unless it says that the terminal is gone: nobody wants a server that lives on unseen and holds the port.
fn watch_signals(server: Arc<Server>, shared: Arc<LoopState>, socket: Socket, hangups: Sender<()>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let has_terminal = || io::stdin().is_terminal() || io::stderr().is_terminal();
    let had_terminal = has_terminal();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP && (!had_terminal || has_terminal()) {
                let _ = hangups.send(());
                continue;
            }
            if shared.stopping.swap(true, Ordering::AcqRel) {
                std::process::exit(128 + signal);
            }
            // New connections are refused from here on; requests that are already in are still answered.
            let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
            server.unblock();
        }
    })?;
    Ok(())
}

fn tick(address: SocketAddr, server: Arc<Server>, shared: Arc<LoopState>) -> io::Result<()> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let to_ourselves = SocketAddr::new(ip, address.port());
    thread::Builder::new().name("ticker".to_owned()).spawn(move || {
        let (mut seen, mut quiet, mut first) = (0, TICKS_TO_IDLE, 0);
        while !shared.stopping.load(Ordering::Acquire) {
            if accept_panicked() {
                // Nobody else would wake the loop to learn of it.
                return server.unblock();
            }
            // A client that hung up at once never becomes a request, but its thread's panic leaves others waiting as well.
            let activity = shared.requests.load(Ordering::Relaxed) + connection_panics();
            quiet = if activity == seen { quiet.saturating_add(1) } else { 0 };
            seen = activity;
            if quiet >= TICKS_TO_IDLE {
                shared.sleep_until_a_request();
                first = FIRST_TICKS;
            } else {
                thread::sleep(if first > 0 { FIRST_TICK } else { BUSY_TICK });
                first = first.saturating_sub(1);
            }
            drop(TcpStream::connect_timeout(&to_ourselves, RECEIVE_TIMEOUT / 10));
        }
    })?;
    Ok(())
}

impl LoopState {
    /// Sleeps for an idle tick, or until a request wakes it. If the two miss each other, the tick ends it.
    fn sleep_until_a_request(&self) {
        let guard = lock(&self.sleep);
        self.idle.store(true, Ordering::Release);
        drop(self.wake.wait_timeout_while(guard, IDLE_TICK, |()| self.idle.load(Ordering::Acquire)));
    }
}

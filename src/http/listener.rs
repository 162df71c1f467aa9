//! The listening socket, and the events that wake the request loop: a request, a body that was
//! read, new settings, a stop signal.
//!
//! tiny_http could bind the socket itself. It is bound here because every connection inherits the
//! options set on it:
//!
//! - `TCP_NODELAY`: without it a response in two pieces waits 44 ms for the client's delayed
//!   acknowledgement;
//! - a send timeout, so that a client that does not read cannot hold the loop;
//! - a receive timeout, so that silent connections end. It would also end `accept`, which the
//!   ticker prevents.
//!
//! The ticker connects to the program's own port many times a second, or once if there are no
//! requests, and hangs up. It is needed
//! because tiny_http's thread pool counts a thread as free until it has woken up: five connections
//! that open together can share four threads, and one of them waits until another connection is
//! opened or closed. A browser opens six. Each tick is such a connection and frees one that waits,
//! so the ticker is fastest when requests begin to come in.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

#[cfg(target_os = "linux")]
use super::keeper;
use super::panics::{accept_panicked, connection_panics, take_accept_panic};
use super::peers::Peers;
use super::process::{Cause, Process, Renewals};
use super::servers::Servers;
use super::signals::{CaughtSignals, SignalThread};
use super::ticket::QueuedRequest;
use crate::page::ProcessView;
use crate::sync::lock;

/// Source of requests.
pub struct Listener {
    waker: Waker,
    peers: Arc<Peers>,
    process: Arc<Process>,
    address: SocketAddr,
    socket: Socket,
    signals: Option<SignalThread>,
    /// Descriptors that are closed when the process must renew itself because none are left.
    spares: Vec<Socket>,
    /// True if the socket belongs to a service manager too.
    is_shared: bool,
}

/// Wakes the loop, which then returns [`Next::Wake`].
#[derive(Clone)]
pub struct Waker {
    servers: Arc<Servers>,
    shared: Arc<LoopState>,
}

/// Next event for the loop.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly always a request")]
pub enum Next {
    /// A request arrived.
    Request(QueuedRequest),
    /// Bodies may have been read, or settings may have changed.
    Wake,
    /// A stop signal arrived.
    Stop,
    /// The process must renew itself, for this cause.
    Renew(Cause),
    /// No more connections can be accepted, for this reason.
    Failed(io::Error),
}

#[derive(Default)]
struct LoopState {
    stopping: AtomicBool,
    /// True from a call of [`Waker::wake`] until the loop has seen it.
    woken: AtomicBool,
    /// Cause for which the process must renew itself.
    renewal: Mutex<Option<Cause>>,
    /// True once no more connections are accepted, because the process renews itself.
    paused: AtomicBool,
    /// True once no more requests are answered, because the process renews itself.
    closing: AtomicBool,
    /// True if a connection has input that is not read. It may be waiting for a thread, behind many
    /// others.
    has_unread: AtomicBool,
    /// True while the ticker sleeps. The next request wakes it.
    idle: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// Maximum time that the loop waits for a client to read, once per connection; an outbox does the
/// rest.
const SEND_TIMEOUT: Duration = Duration::from_millis(5);
/// Maximum time between two bytes of a client where there is no keeper. The keeper distinguishes
/// more, and this is only its safety net.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(target_os = "linux")]
const RECEIVE_TIMEOUT_WITH_KEEPER: Duration = keeper::IDLE.saturating_mul(2);
/// Maximum time that the ticker waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A body is smaller. What a client sends after its connection was closed is limited by this.
const RECEIVE_BUFFER: usize = 64 * 1024;
const USER_TIMEOUT: Duration = Duration::from_secs(6);
const SEND_BUFFER: usize = 256 * 1024;
/// Where it is full, clients send again after a second. The system may allow less.
const BACKLOG: i32 = 2048;
/// A renewal needs descriptors: to listen no more, and to send what is queued.
const SPARES: usize = 8;
const FIRST_TICKS: u32 = 128;
const FIRST_TICK: Duration = Duration::from_millis(1);
/// Time between looks for free descriptors while no connection can be accepted.
const DOWN_TICK: Duration = Duration::from_millis(2);
const BUSY_TICK: Duration = Duration::from_millis(10);
const IDLE_TICK: Duration = Duration::from_millis(100);
/// The same where the keeper sees connections that wait for a thread.
const IDLE_TICK_WITH_KEEPER: Duration = Duration::from_secs(1);
/// Number of busy ticks without a request after which the ticker slows down.
const TICKS_TO_IDLE: u32 = 100;

impl Listener {
    /// Listens on the socket that the process was started with, or else on `address`, `host:port`;
    /// port 0 chooses a free one. Every SIGHUP is sent to `hangups`. `renewals` are those of the
    /// process so far.
    ///
    /// # Errors
    ///
    /// The address is not valid, or is in use.
    pub fn open(address: &str, signals: CaughtSignals, hangups: Sender<()>, renewals: Renewals) -> io::Result<Self> {
        let inherited = ListenFd::from_env().take_tcp_listener(0).map_err(|error| {
            io::Error::new(ErrorKind::Unsupported, format!("the inherited socket is of the wrong kind ({error})"))
        })?;
        let is_shared = inherited.is_some() && (renewals.count == 0 || renewals.is_socket_shared);
        let socket = match inherited {
            Some(inherited) => {
                inherited.set_nonblocking(false)?;
                let socket = Socket::from(inherited);
                set_options(&socket)?;
                socket
            }
            None => bind_first(address)?,
        };
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        let spares = (0..SPARES).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
        let (peers, process) = (Arc::<Peers>::default(), Arc::new(Process::new(renewals)));
        let waker = Waker { servers: Arc::new(Servers::new(socket.try_clone()?)), shared: Arc::default() };
        let (for_stop, to_wake) = (socket.try_clone()?, waker.clone());
        let signals = signals.watch(hangups, move || {
            to_wake.shared.stopping.store(true, Ordering::Release);
            // Requests already received are answered. New connections are refused, unless the
            // socket belongs to a service manager too: then they wait for the next process.
            if !is_shared {
                let _ = for_stop.shutdown(std::net::Shutdown::Both);
            }
            to_wake.wake();
        })?;
        start_ticker(address, waker.clone(), Arc::clone(&peers), Arc::clone(&process))?;
        #[cfg(target_os = "linux")]
        keeper::start(waker.clone(), Arc::clone(&peers), Arc::clone(&process), socket.try_clone()?, address.port())?;
        Ok(Self { waker, peers, process, address, socket, signals: Some(signals), spares, is_shared })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Wakes the loop from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The state of the process, for the status.
    pub(super) fn process_view(&self) -> ProcessView {
        self.process.view(&self.peers)
    }

    /// Begins to accept connections. Until then they wait in the backlog.
    ///
    /// # Errors
    ///
    /// There is no thread for that.
    pub fn accept(&self) -> io::Result<()> {
        self.waker.servers.start()
    }

    /// Waits for the next event.
    pub fn next(&self) -> Next {
        let Waker { servers, shared } = &self.waker;
        loop {
            // Before the rest: a message that was to wake the loop may be taken with the requests.
            self.peers.collect(servers);
            if shared.stopping.load(Ordering::Acquire) {
                return Next::Stop;
            }
            if let Err(error) = self.keep_accepting() {
                return Next::Failed(error);
            }
            if shared.woken.swap(false, Ordering::AcqRel) {
                return match lock(&shared.renewal).take() {
                    Some(cause) => Next::Renew(cause),
                    None => Next::Wake,
                };
            }
            if let Some(queued) = self.peers.pop() {
                self.waker.wake_ticker();
                return Next::Request(queued);
            }
            self.peers.wait(servers, servers.is_down().then_some(DOWN_TICK));
        }
    }

    /// Starts another server if tiny_http's thread has ended because descriptors ran out.
    fn keep_accepting(&self) -> io::Result<()> {
        let servers = &self.waker.servers;
        if let Some(error) = self.peers.take_failure().or_else(take_accept_panic) {
            // Without a keeper, no descriptor would become free.
            if !self.peers.has_keeper() {
                return Err(error);
            }
            servers.fail(error)?;
        }
        if !servers.is_down() {
            return Ok(());
        }
        let waker = self.waker();
        servers.recover(&self.peers, self.process.has_room(), move || waker.wake())
    }

    /// The next request that has been received already, if there is one.
    /// It looks for one behind requests that are discarded, but not after `deadline`.
    pub fn next_waiting(&self, deadline: Instant) -> Option<QueuedRequest> {
        loop {
            let may_be_more = self.peers.collect(&self.waker.servers);
            let queued = self.peers.pop();
            if queued.is_some() || !may_be_more || Instant::now() > deadline {
                return queued;
            }
        }
    }

    /// True if a request waits or is being answered, or if one may be on its way.
    pub fn is_busy(&self) -> bool {
        self.peers.is_busy() || self.process.fresh.load(Ordering::Relaxed) > 0
    }

    /// Number of times that the keeper has looked at all connections. `None` if there is no keeper.
    pub fn looks(&self) -> Option<usize> {
        self.peers.has_keeper().then(|| self.process.looks.load(Ordering::Acquire))
    }

    /// The state of the process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// True once a stop signal has arrived.
    pub fn is_stopping(&self) -> bool {
        self.waker.is_stopping()
    }

    /// Accepts no more connections, and leaves new ones in the backlog of the socket.
    pub fn pause(&mut self) {
        self.spares.clear();
        self.waker.shared.paused.store(true, Ordering::Release);
        // The thread that accepts ends when `accept` would block. It waits in a call that began
        // before, which needs one more connection.
        let _ = self.socket.set_nonblocking(true);
        drop(TcpStream::connect_timeout(&own_address(self.address), CONNECT_TIMEOUT));
    }

    /// True if the socket belongs to a service manager too.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Closes all connections. New ones stay in the backlog of the socket.
    pub fn close_connections(&self) {
        self.waker.shared.closing.store(true, Ordering::Release);
    }

    /// Ends the thread that fetches signals: those that arrive later wait for the process that
    /// takes over.
    pub fn leave_signals(&mut self) {
        if let Some(thread) = self.signals.take() {
            thread.end();
        }
    }

    /// The listening socket, for the process that takes over.
    #[cfg(unix)]
    pub fn into_socket(self) -> std::os::fd::OwnedFd {
        self.socket.into()
    }
}

impl Waker {
    /// Wakes the loop.
    pub fn wake(&self) {
        self.shared.woken.store(true, Ordering::Release);
        if let Some(server) = self.servers.current() {
            server.unblock();
        }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Asks the loop to end, so that the process renews itself.
    #[cfg(target_os = "linux")]
    pub(super) fn renew(&self, cause: Cause) {
        *lock(&self.shared.renewal) = Some(cause);
        self.wake();
    }

    /// Makes the ticker free connections that may be waiting for a thread.
    #[cfg(target_os = "linux")]
    pub(super) fn has_unread_input(&self) {
        self.shared.has_unread.store(true, Ordering::Release);
        self.wake_ticker();
    }

    fn wake_ticker(&self) {
        if self.shared.idle.swap(false, Ordering::AcqRel) {
            self.shared.wake.notify_one();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// True once all connections are to be closed.
    #[cfg(target_os = "linux")]
    pub(super) fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// True once no more connections are accepted, because the process renews itself.
    #[cfg(target_os = "linux")]
    pub(super) fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire)
    }
}

fn bind_first(address: &str) -> io::Result<Socket> {
    let mut result = Err(io::Error::new(ErrorKind::NotFound, "DNS lookup failed"));
    for candidate in address.to_socket_addrs()? {
        result = bind(candidate);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    set_options(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Sets the options that every connection inherits.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.set_read_timeout(Some(receive_timeout()))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(30)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

fn receive_timeout() -> Duration {
    #[cfg(target_os = "linux")]
    if keeper::is_possible() {
        return RECEIVE_TIMEOUT_WITH_KEEPER;
    }
    RECEIVE_TIMEOUT
}

/// The address at which this machine reaches a socket that listens on `address`.
fn own_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}

/// Starts the ticker.
fn start_ticker(address: SocketAddr, waker: Waker, peers: Arc<Peers>, process: Arc<Process>) -> io::Result<()> {
    let own_address = own_address(address);
    thread::Builder::new().name("ticker".to_owned()).spawn(move || {
        let (mut seen, mut quiet, mut first) = (0, TICKS_TO_IDLE, 0);
        while !waker.is_stopping() && !waker.shared.paused.load(Ordering::Acquire) {
            if accept_panicked() {
                // No other thread would wake the loop.
                waker.wake();
            }
            // A client that hangs up at once sends no request, but the panic of its thread leaves
            // other connections waiting as well.
            let activity = peers.requests() + connection_panics();
            quiet = if activity == seen { quiet.saturating_add(1) } else { 0 };
            seen = activity;
            if waker.shared.has_unread.swap(false, Ordering::AcqRel) {
                (quiet, first) = (0, FIRST_TICKS);
            }
            if quiet >= TICKS_TO_IDLE {
                let most = if peers.has_keeper() { IDLE_TICK_WITH_KEEPER } else { IDLE_TICK };
                waker.shared.sleep_until_a_request(most);
                first = FIRST_TICKS;
            } else {
                thread::sleep(if first > 0 { FIRST_TICK } else { BUSY_TICK });
                first = first.saturating_sub(1);
            }
            // While threads are slow to start, ticks would pile up.
            if !process.is_tight() && !waker.servers.is_down() {
                drop(TcpStream::connect_timeout(&own_address, CONNECT_TIMEOUT));
            }
        }
    })?;
    Ok(())
}

impl LoopState {
    /// Sleeps until a request arrives, at most so long.
    fn sleep_until_a_request(&self, most: Duration) {
        let guard = lock(&self.sleep);
        self.idle.store(true, Ordering::Release);
        drop(self.wake.wait_timeout_while(guard, most, |()| self.idle.load(Ordering::Acquire)));
    }
}

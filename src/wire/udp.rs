//! Datagrams to a daemon over UDP.
//!
//! UDP has no responses. There is only one sign that no daemon listens. The kernel of the daemon's
//! machine replies with an ICMP message "port unreachable". Our kernel reports it as an error of
//! the *next* call on the same socket, and only if the socket is connected. SDKs use unconnected
//! sockets, so they never see this error. If the daemon is on the same machine, the ICMP message
//! arrives before `send` returns. So the sender reads the socket's error directly after `send`: an
//! error then belongs to the datagram that was just sent.
//!
//! Loss in a full receive buffer leaves no trace at all. The usual buffer holds 166 datagrams of up
//! to 600 bytes, or half as many larger ones. On a busy machine the daemon may have to wait some
//! milliseconds for the CPU. So the sender spreads its datagrams: it sends 16 to 64 at once, and 4 per
//! millisecond. While more of them come without a gap, it sends up to 24 per millisecond.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// A host and a port. The host name is not resolved yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// The host name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A connected UDP socket to the current address of a host name.
pub struct DatagramSender {
    to: HostPort,
    socket: Option<(UdpSocket, SocketAddr)>,
    /// The number of failed sends so far. Each failure moves on to the next address of the name;
    /// `localhost` often has two.
    failures: usize,
    resolved_at: Instant,
    pace: Pace,
}

/// The rate of datagrams. It rises while they come without a gap, and falls after each gap.
struct Pace {
    /// Time for one datagram.
    interval: Duration,
    /// End of the time for the datagrams sent so far.
    paid_until: Instant,
}

/// The result of a send that did not fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendOutcome {
    /// The datagram was sent, and no refusal has been reported.
    Sent,
    /// The datagram was sent, but the one before it was refused.
    SentAfterRefusal,
}

/// The reason why a datagram could not be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendError {
    /// The DNS lookup of the host name failed.
    UnknownHost(String),
    /// Nothing listens at this address: connection refused.
    ConnectionRefused(SocketAddr),
    /// The data is larger than the largest possible datagram.
    TooBig,
    /// Any other error.
    Other(String),
}

/// The time for one datagram at the highest rate and at the lowest: 24 and 4 in a millisecond.
const SHORTEST_INTERVAL: Duration = Duration::from_nanos(1_000_000 / 24);
const LONGEST_INTERVAL: Duration = Duration::from_nanos(1_000_000 / 4);
/// The most datagrams that are sent without a pause.
const BURST: u32 = 16;
/// The most datagrams that are sent at once beyond a burst, because there was time for them before.
const MAX_SAVED: u32 = 48;
const PAUSE: Duration = Duration::from_millis(1);
/// The time without a datagram after which nothing was waiting. A shorter one may be a thread that had
/// no processor.
const GAP: Duration = Duration::from_millis(20);
/// The time between two lookups of the name. A restarted container has another address.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

impl HostPort {
    /// Parses `host:port` or `[v6]:port`. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<IpAddr>().is_ok())?,
            None if host.contains(':') => return None,
            None => host,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        (!host.is_empty() && host.chars().all(allowed)).then(|| Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl DatagramSender {
    /// Creates a sender to `to`. The name is not resolved before the first datagram.
    pub fn new(to: HostPort) -> Self {
        let now = Instant::now();
        Self { to, socket: None, failures: 0, resolved_at: now, pace: Pace::new(now) }
    }

    /// Sends one datagram. If the socket reports that an earlier datagram was refused, this one is
    /// sent again.
    ///
    /// # Errors
    ///
    /// Returns an error if the datagram could not be sent or was refused.
    pub fn send(&mut self, bytes: &[u8]) -> Result<SendOutcome, SendError> {
        let now = Instant::now();
        if let Some(pause) = self.pace.pause_before_next(now) {
            thread::sleep(pause);
        }
        let (socket, address) = self.socket(now)?;
        let outcome = match socket.send(bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                socket.send(bytes).map(|_| SendOutcome::SentAfterRefusal)
            }
            other => other.map(|_| SendOutcome::Sent),
        };
        let outcome = match (outcome, socket.take_error()) {
            (Ok(_), Ok(Some(error))) => Err(error),
            (outcome, _) => outcome,
        };
        outcome.map_err(|error| {
            // After any error the next datagram resolves the name again.
            self.socket = None;
            self.failures += 1;
            match error.kind() {
                ErrorKind::ConnectionRefused => SendError::ConnectionRefused(address),
                _ if error.raw_os_error() == Some(EMSGSIZE) => SendError::TooBig,
                _ => SendError::Other(format!("{error}: udp {address}")),
            }
        })
    }

    /// The address of the last datagram, if the datagram has been refused since it was sent.
    pub fn refused(&mut self) -> Option<SocketAddr> {
        let (socket, address) = self.socket.as_ref()?;
        let refused = matches!(socket.take_error(), Ok(Some(error)) if error.kind() == ErrorKind::ConnectionRefused);
        refused.then_some(*address)
    }

    fn socket(&mut self, now: Instant) -> Result<(&UdpSocket, SocketAddr), SendError> {
        if self.socket.is_none() || now.saturating_duration_since(self.resolved_at) > RESOLVE_INTERVAL {
            self.resolved_at = now;
            let found = self.resolve()?;
            if self.socket.as_ref().is_none_or(|(_, address)| *address != found) {
                let socket = connect(found).map_err(|error| SendError::Other(format!("{error}: udp {found}")))?;
                self.socket = Some((socket, found));
            }
        }
        match &self.socket {
            Some((socket, address)) => Ok((socket, *address)),
            None => Err(SendError::UnknownHost(self.to.host.clone())),
        }
    }

    fn resolve(&self) -> Result<SocketAddr, SendError> {
        let unknown = || SendError::UnknownHost(self.to.host.clone());
        let found = (self.to.host.as_str(), self.to.port).to_socket_addrs().map_err(|_| unknown())?;
        let found: Vec<SocketAddr> = found.collect();
        let index = self.failures % found.len().max(1);
        found.get(index).copied().ok_or_else(unknown)
    }
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { interval: LONGEST_INTERVAL, paid_until: now }
    }

    /// Returns the time to wait before the next datagram, if it must wait.
    fn pause_before_next(&mut self, now: Instant) -> Option<Duration> {
        // Without a gap, datagrams may be waiting.
        self.interval = if self.paid_until + GAP < now {
            (self.interval + self.interval / 2).min(LONGEST_INTERVAL)
        } else {
            (self.interval - self.interval / 1024).max(SHORTEST_INTERVAL)
        };
        // A pause may have been longer than intended, so some time is saved up.
        let earliest = now.checked_sub(self.interval * MAX_SAVED).unwrap_or(now);
        self.paid_until = self.paid_until.max(earliest) + self.interval;
        let ahead = self.paid_until.saturating_duration_since(now);
        (ahead > self.interval * BURST).then(|| ahead.min(PAUSE))
    }
}

/// The error number of Linux for a datagram that is too large.
const EMSGSIZE: i32 = 90;

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in
            [("xray-daemon:2000", "xray-daemon", 2000), ("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:2000", "::1", 2000)]
        {
            let parsed = HostPort::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port));
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "host", ":2000", "host:", "host:0", "host:65536", "::1:2000", "[x]:1", "http://h:1", "a b:1"] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_datagram_to_nobody_is_noticed_and_one_to_somebody_arrives() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        let mut sender = DatagramSender::new(HostPort { host: "localhost".to_owned(), port });
        let mut sender_v4 = DatagramSender::new(HostPort { host: "127.0.0.1".to_owned(), port });
        assert_eq!(sender_v4.send(b"hello"), Ok(SendOutcome::Sent));
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
        drop(receiver);
        let refusals =
            (0..4).filter(|_| matches!(sender_v4.send(b"hello"), Err(SendError::ConnectionRefused(_)))).count();
        assert!(refusals >= 2, "{refusals}");
        assert!(sender.send(&[0; 70_000]).is_err());
    }

    #[test]
    fn a_name_that_leads_nowhere_is_said() {
        let mut sender = DatagramSender::new(HostPort { host: "no-such-host.invalid".to_owned(), port: 2000 });
        assert_eq!(sender.send(b"x"), Err(SendError::UnknownHost("no-such-host.invalid".to_owned())));
    }

    /// Sends `count` datagrams in batches. The first of a batch comes `gap` after the last one of
    /// the batch before it. Returns the time at the end.
    fn send(pace: &mut Pace, mut now: Instant, count: u32, batch: u32, gap: Duration) -> Instant {
        for number in 0..count {
            if number % batch == 0 {
                now += gap;
            }
            now += pace.pause_before_next(now).unwrap_or_default();
        }
        now
    }

    #[test]
    fn no_more_than_a_burst_leaves_at_once() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let at_once = (0..1000).take_while(|_| pace.pause_before_next(began).is_none()).count() as u32;
        assert!((BURST - 1..=BURST).contains(&at_once), "{at_once}");
    }

    #[test]
    fn the_rate_follows_the_demand_between_its_limits() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        // Without a gap the rate rises to the highest within 5,000 datagrams.
        let now = send(&mut pace, began, 5000, 5000, Duration::ZERO);
        assert_eq!(pace.interval, SHORTEST_INTERVAL);
        let then = send(&mut pace, now, 24_000, 24_000, Duration::ZERO);
        let took = (then - now).as_secs_f64();
        assert!((0.99..1.01).contains(&took), "24,000 datagrams took {took} s");
        // Batches of 128 in 40 ms are 3.2 per millisecond, so the rate falls to the lowest.
        let now = send(&mut pace, then, 128 * 50, 128, Duration::from_millis(40));
        assert!(pace.interval > LONGEST_INTERVAL * 3 / 4, "{:?}", pace.interval);
        // A short run after a gap changes little.
        send(&mut pace, now, 50, 50, Duration::from_secs(60));
        assert!(pace.interval > LONGEST_INTERVAL * 3 / 4, "{:?}", pace.interval);
    }
}

//! Datagrams to a daemon.
//!
//! UDP has no answers, and a daemon that is not there is noticed only in one way: the kernel over there sends an ICMP
//! "port unreachable", and our kernel gives it to the *next* call on the same socket, provided that the socket is
//! connected. An unconnected one, as SDKs use it, never hears of it. On one machine the ICMP is back before `send`
//! returns, so asking the socket right after it tells whether this very datagram was refused.
//!
//! Loss in a full receive buffer leaves no trace at all. The usual buffer holds 166 datagrams of up to 600 bytes, half as many
//! larger ones, and a daemon on a busy machine may not be scheduled for some milliseconds; so no more than 16 leave in one.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// `host:port`, not yet looked up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A connected socket to wherever the name leads at the moment.
pub struct DatagramSender {
    to: HostPort,
    socket: Option<(UdpSocket, SocketAddr)>,
    /// How often the last address refused: a name may have several, and `localhost` often has two.
    refusals: usize,
    looked_up: Instant,
    burst: u32,
    burst_began: Instant,
}

/// What became of a datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendOutcome {
    /// It left, and nobody has complained so far.
    Yes,
    /// It left; the complaint was about an earlier one.
    AfterRefusal,
}

/// Why a datagram did not leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendError {
    /// The host name has no address.
    UnknownHost(String),
    /// Nobody listens at this address.
    ConnectionRefused(SocketAddr),
    /// It is larger than a datagram can be.
    TooBig,
    /// Anything else.
    Other(String),
}

const BURST: u32 = 16;
const BREATH: Duration = Duration::from_millis(1);
/// A name is looked up again after this time: a container that was restarted has another address.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);

impl HostPort {
    /// Reads `host:port` or `[v6]:port`.
    #[must_use]
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
    /// A sender to `to`; nothing is looked up before the first datagram.
    #[must_use]
    pub fn new(to: HostPort) -> Self {
        let now = Instant::now();
        Self { to, socket: None, refusals: 0, looked_up: now, burst: 0, burst_began: now }
    }

    /// Sends one datagram. A refusal of an earlier one costs a second try, not this one.
    ///
    /// # Errors
    ///
    /// It did not leave, or was refused.
    pub fn send(&mut self, bytes: &[u8]) -> Result<SendOutcome, SendError> {
        self.pace();
        let (socket, address) = self.socket()?;
        let outcome = match socket.send(bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                socket.send(bytes).map(|_| SendOutcome::AfterRefusal)
            }
            other => other.map(|_| SendOutcome::Yes),
        };
        let outcome = match (outcome, socket.take_error()) {
            (Ok(_), Ok(Some(error))) => Err(error),
            (outcome, _) => outcome,
        };
        outcome.map_err(|error| {
            // Whatever it is, the next datagram looks the name up again.
            self.socket = None;
            self.refusals += 1;
            match error.kind() {
                ErrorKind::ConnectionRefused => SendError::ConnectionRefused(address),
                _ if error.raw_os_error() == Some(MESSAGE_TOO_LONG) => SendError::TooBig,
                _ => SendError::Other(format!("{address}: {error}")),
            }
        })
    }

    /// Where the last datagram went, if that has been refused since.
    pub fn refused(&mut self) -> Option<SocketAddr> {
        let (socket, address) = self.socket.as_ref()?;
        let refused = matches!(socket.take_error(), Ok(Some(error)) if error.kind() == ErrorKind::ConnectionRefused);
        refused.then_some(*address)
    }

    fn socket(&mut self) -> Result<(&UdpSocket, SocketAddr), SendError> {
        if self.socket.is_none() || self.looked_up.elapsed() > LOOK_UP_AGAIN {
            self.looked_up = Instant::now();
            let found = self.look_up()?;
            if self.socket.as_ref().is_none_or(|(_, address)| *address != found) {
                let socket = connect(found).map_err(|error| SendError::Other(format!("{found}: {error}")))?;
                self.socket = Some((socket, found));
            }
        }
        match &self.socket {
            Some((socket, address)) => Ok((socket, *address)),
            None => Err(SendError::UnknownHost(self.to.host.clone())),
        }
    }

    fn look_up(&self) -> Result<SocketAddr, SendError> {
        let unknown = || SendError::UnknownHost(self.to.host.clone());
        let found = (self.to.host.as_str(), self.to.port).to_socket_addrs().map_err(|_| unknown())?;
        let found: Vec<SocketAddr> = found.collect();
        // After every refusal it is the next address's turn.
        let turn = self.refusals % found.len().max(1);
        found.get(turn).copied().ok_or_else(unknown)
    }

    fn pace(&mut self) {
        if self.burst_began.elapsed() > BREATH {
            (self.burst, self.burst_began) = (0, Instant::now());
        }
        self.burst += 1;
        if self.burst > BURST {
            thread::sleep(BREATH);
            (self.burst, self.burst_began) = (1, Instant::now());
        }
    }
}

/// `EMSGSIZE` of Linux.
const MESSAGE_TOO_LONG: i32 = 90;

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
        assert_eq!(sender_v4.send(b"hello"), Ok(SendOutcome::Yes));
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

    #[test]
    fn no_more_than_a_burst_leaves_at_once() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut sender = DatagramSender::new(HostPort { host: "127.0.0.1".to_owned(), port: address.port() });
        let began = Instant::now();
        for _ in 0..=3 * BURST {
            sender.send(b"x").unwrap();
        }
        assert!(began.elapsed() >= 3 * BREATH);
    }
}

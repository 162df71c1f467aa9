//! Load generator: keep-alive connections that each send the next request when the last response has
//! arrived.
//!
//!     load PORT CONNECTIONS SECONDS 59|581
//!
//! The last argument is the size of the request's head: the smallest possible, or that of a browser.
//! It prints one line of JSON. Every response that is missing two seconds after the end counts as
//! unanswered.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

const SMALL: &str = "GET /api/activities/home HTTP/1.1\r\nHost: 127.0.0.1:4567\r\n\r\n";
const BROWSER: &str = concat!(
    "GET /api/activities/home HTTP/1.1\r\n",
    "Host: 127.0.0.1:4567\r\n",
    "Connection: keep-alive\r\n",
    "sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n",
    "sec-ch-ua-mobile: ?0\r\n",
    "sec-ch-ua-platform: \"Linux\"\r\n",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n",
    "Accept: application/json, text/plain, */*\r\n",
    "Origin: http://localhost:3000\r\n",
    "Sec-Fetch-Site: same-site\r\n",
    "Sec-Fetch-Mode: cors\r\n",
    "Sec-Fetch-Dest: empty\r\n",
    "Referer: http://localhost:3000/\r\n",
    "Accept-Encoding: gzip, deflate, br, zstd\r\n",
    "Accept-Language: en-US,en;q=0.9\r\n\r\n",
);
/// How long the last responses may take.
const GRACE: Duration = Duration::from_secs(2);

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Time at which the request was sent; `None` if there is none under way.
    sent: Option<Instant>,
}

/// What a connection did with the bytes that arrived.
enum Progress {
    Incomplete,
    Answered { is_ok: bool, closes: bool },
    Broken,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, connections, seconds, head] = arguments.as_slice() else {
        panic!("usage: load PORT CONNECTIONS SECONDS 59|581")
    };
    let address: SocketAddr = ([127, 0, 0, 1], port.parse().expect("a port")).into();
    let seconds = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let request = [SMALL, BROWSER].into_iter().find(|request| request.len().to_string() == *head);
    let request = request.expect("the head has 59 or 581 bytes").as_bytes();

    let mut poll = Poll::new().expect("epoll");
    let mut events = Events::with_capacity(256);
    let mut connections: Vec<Connection> =
        (0..connections.parse().expect("a number")).map(|index| connect(&poll, address, index)).collect();
    let (mut latencies, mut in_time, mut errors) = (Vec::with_capacity(1 << 20), 0_u64, 0_u64);
    let begin = Instant::now();
    let end = begin + seconds;
    for connection in &mut connections {
        send(connection, request);
    }
    while connections.iter().any(|connection| connection.sent.is_some()) && Instant::now() < end + GRACE {
        poll.poll(&mut events, Some(Duration::from_millis(100))).expect("epoll");
        for event in &events {
            let index = event.token().0;
            let connection = &mut connections[index];
            let progress = receive(connection);
            let now = Instant::now();
            let is_over = now >= end;
            let is_lost = match progress {
                Progress::Incomplete => continue,
                Progress::Answered { is_ok, closes } => {
                    errors += u64::from(!is_ok);
                    in_time += u64::from(is_ok && !is_over);
                    latencies.extend(connection.sent.take().map(|sent| (now - sent).as_micros() as u64));
                    closes
                }
                Progress::Broken => {
                    errors += u64::from(connection.sent.take().is_some());
                    true
                }
            };
            if is_lost {
                *connection = connect(&poll, address, index);
            }
            if !is_over {
                send(connection, request);
            }
        }
    }
    let unanswered = connections.iter().filter(|connection| connection.sent.is_some()).count();
    latencies.sort_unstable();
    let quantile =
        |share: f64| latencies.get(((latencies.len().saturating_sub(1)) as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        r#"{{"answered":{},"in_time":{in_time},"seconds":{},"errors":{errors},"unanswered":{unanswered},"p50_us":{},"p99_us":{}}}"#,
        latencies.len(),
        seconds.as_secs_f64(),
        quantile(0.5),
        quantile(0.99)
    );
}

fn connect(poll: &Poll, address: SocketAddr, index: usize) -> Connection {
    let stream = std::net::TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("TCP has this option");
    stream.set_nonblocking(true).expect("a socket has this option");
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(index), Interest::READABLE).expect("epoll");
    Connection { stream, received: Vec::with_capacity(16384), sent: None }
}

/// Sends the next request. It always fits into the empty buffer of the socket; if the server has closed
/// the connection, the next read says so.
fn send(connection: &mut Connection, request: &[u8]) {
    connection.received.clear();
    connection.sent = Some(Instant::now());
    let _ = connection.stream.write_all(request);
}

fn receive(connection: &mut Connection) -> Progress {
    let mut chunk = [0; 16384];
    loop {
        match connection.stream.read(&mut chunk) {
            Ok(0) => return Progress::Broken,
            Ok(read) => {
                connection.received.extend_from_slice(&chunk[..read]);
                // A shorter read than asked for has emptied the socket's buffer.
                if read < chunk.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Progress::Broken,
        }
    }
    let received = &connection.received;
    let Some(head_end) = memmem::find(received, b"\r\n\r\n") else { return Progress::Incomplete };
    let (mut length, mut closes) = (None, false);
    for line in received[..head_end].split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:") {
            length = std::str::from_utf8(&line[15..]).ok().and_then(|text| text.trim().parse::<usize>().ok());
        }
        closes |= line.eq_ignore_ascii_case(b"connection: close");
    }
    let length = length.expect("every peer sends Content-Length");
    if received.len() < head_end + 4 + length {
        return Progress::Incomplete;
    }
    Progress::Answered { is_ok: received.starts_with(b"HTTP/1.1 200 "), closes }
}

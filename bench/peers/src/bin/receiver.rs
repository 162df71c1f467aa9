//! Receives the telemetry of all servers on loopback and counts it: OTLP (JSON and protobuf),
//! PutLogEvents, and X-Ray's datagrams.
//!
//! It prints its ports as one line of JSON. `GET /stats` returns the counts since the last call. It
//! answers a program that asks for sampling rules: sample everything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use memchr::memmem;

const HOME: &[u8] = b"/api/activities/home";
const RULES: &str = r#"{"SamplingRuleRecords":[{"SamplingRule":{"RuleName":"all","Priority":1,"FixedRate":1.0,"ReservoirSize":0,"ServiceName":"*","ServiceType":"*","Host":"*","HTTPMethod":"*","URLPath":"*","ResourceARN":"*","Version":1,"Attributes":{}}}]}"#;

static SPANS: AtomicU64 = AtomicU64::new(0);
static SPAN_BYTES: AtomicU64 = AtomicU64::new(0);
/// Log events about requests to the home route. Start-up lines are not counted.
static LOG_EVENTS: AtomicU64 = AtomicU64::new(0);
static DATAGRAMS: AtomicU64 = AtomicU64::new(0);

fn main() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("it is bound").port();
    println!(r#"{{"tcp":{},"udp":{}}}"#, port(tcp.local_addr()), port(udp.local_addr()));
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while udp.recv(&mut buffer).is_ok() {
            DATAGRAMS.fetch_add(1, Relaxed);
        }
    });
    for stream in tcp.incoming().flatten() {
        // The client ends the connection when it wants.
        thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut received, mut chunk) = (Vec::with_capacity(1 << 16), vec![0; 1 << 18]);
    loop {
        let head_end = loop {
            if let Some(at) = memmem::find(&received, b"\r\n\r\n") {
                break at + 4;
            }
            if !read_more(&mut stream, &mut chunk, &mut received)? {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&received[..head_end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if head.contains("100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        assert!(!head.contains("transfer-encoding:"), "the receiver cannot read chunked bodies");
        while received.len() < head_end + length {
            if !read_more(&mut stream, &mut chunk, &mut received)? {
                return Ok(());
            }
        }
        let (kind, answer) = respond(&head, &received[head_end..head_end + length]);
        received.drain(..head_end + length);
        let length = answer.len();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-amzn-requestid: 1\r\ncontent-length: {length}\r\n\r\n{answer}"
        );
        stream.write_all(response.as_bytes())?;
    }
}

fn read_more(stream: &mut TcpStream, chunk: &mut [u8], received: &mut Vec<u8>) -> std::io::Result<bool> {
    let read = stream.read(chunk)?;
    received.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}

/// Counts the content of a request. Returns type and body of the response.
fn respond(head: &str, body: &[u8]) -> (&'static str, String) {
    const JSON: &str = "application/json";
    const AWS_JSON: &str = "application/x-amz-json-1.1";
    if head.starts_with("get /stats ") {
        return (JSON, stats());
    }
    if head.starts_with("post /getsamplingrules ") {
        return (JSON, RULES.to_owned());
    }
    if head.starts_with("post /samplingtargets ") {
        return (JSON, "{}".to_owned());
    }
    let mut unzipped = Vec::new();
    let body = if head.contains("content-encoding: gzip") {
        flate2::read::GzDecoder::new(body).read_to_end(&mut unzipped).expect("valid gzip");
        &unzipped
    } else {
        body
    };
    if head.contains("x-amz-target:") {
        if head.contains("putlogevents") {
            LOG_EVENTS.fetch_add(events_about_home(body), Relaxed);
        }
        return (AWS_JSON, "{}".to_owned());
    }
    SPAN_BYTES.fetch_add(body.len() as u64, Relaxed);
    if body.first() == Some(&b'{') {
        SPANS.fetch_add(memmem::find_iter(body, b"\"spanId\"").count() as u64, Relaxed);
        return (JSON, "{}".to_owned());
    }
    SPANS.fetch_add(protobuf_fields(body, &[1, 2, 2]), Relaxed);
    ("application/x-protobuf", String::new())
}

/// Counts the log events that name the home route. Each event has one `"timestamp"` of its own, before
/// or after its message, so each piece between two of them belongs to one event.
fn events_about_home(body: &[u8]) -> u64 {
    let mut starts: Vec<usize> = memmem::find_iter(body, b"\"timestamp\"").collect();
    starts.insert(0, 0);
    starts.push(body.len());
    starts.windows(2).filter(|piece| memmem::find(&body[piece[0]..piece[1]], HOME).is_some()).count() as u64
}

/// Counts the protobuf fields at `path`. For OTLP, 1.2.2 are the spans: `resource_spans`,
/// `scope_spans`, `spans`.
fn protobuf_fields(message: &[u8], path: &[u64]) -> u64 {
    let (mut at, mut found) = (0, 0);
    while at < message.len() {
        let tag = varint(message, &mut at);
        match tag & 7 {
            0 => drop(varint(message, &mut at)),
            1 => at += 8,
            5 => at += 4,
            2 => {
                let length = varint(message, &mut at) as usize;
                if tag >> 3 == path[0] {
                    found += if path.len() == 1 { 1 } else { protobuf_fields(&message[at..at + length], &path[1..]) };
                }
                at += length;
            }
            other => panic!("protobuf has no wire type {other}"),
        }
    }
    found
}

fn varint(message: &[u8], at: &mut usize) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = message[*at];
        *at += 1;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return value;
        }
        shift += 7;
    }
}

fn stats() -> String {
    let take = |count: &AtomicU64| count.swap(0, Relaxed);
    format!(
        r#"{{"spans":{},"span_bytes":{},"log_events":{},"datagrams":{}}}"#,
        take(&SPANS),
        take(&SPAN_BYTES),
        take(&LOG_EVENTS),
        take(&DATAGRAMS)
    )
}

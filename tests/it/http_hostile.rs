//! Malicious or broken clients: none of them delays or harms other clients, or ends the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Program, Setup, get, wait_until};

const GET_HOME: &[u8] = b"GET /api/activities/home HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The maximum time of a well-formed request while other clients misbehave, on a slow machine.
const SOON: Duration = Duration::from_secs(2);

fn quiet() -> Program {
    Setup::default().env("RUST_LOG", "off").toml("[console]\nenabled = false\n").start()
}

/// Makes the response of the home route 1.3 kB longer per post. With 100 posts it exceeds 64 KiB.
fn fill_the_feed(program: &Program, posts: usize) {
    let mut client = Client::connect(program.addr());
    let body = json!({ "message": "🦀".repeat(280), "ttl": "1-day" }).to_string();
    for _ in 0..posts {
        let answer =
            client.request("POST", "/api/activities", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(answer.status, 200);
    }
}

fn raw(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream
}

#[track_caller]
fn read_until(stream: &mut TcpStream, needle: &str) {
    let mut buffer = [0; 4096];
    let mut text = String::new();
    while !text.contains(needle) {
        let count = stream.read(&mut buffer).expect("an answer");
        assert_ne!(count, 0, "the connection ended after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[track_caller]
fn is_well(program: &Program) {
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(get(program.addr(), "/health").status, 200);
        assert!(began.elapsed() < SOON, "an honest request took {:?}", began.elapsed());
    }
}

/// Splits a stream of bytes into responses. Returns their statuses, and checks that each has the
/// body that its head promises.
fn split_answers(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no status line in {head:?}"));
        statuses.push(status[..3].parse().expect("a status"));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        assert!(bytes.len() >= end + length, "the last body is {} of {length} bytes", bytes.len() - end);
        bytes = &bytes[end + length..];
    }
    statuses
}

#[test]
fn a_reader_that_pauses_gets_every_byte_of_every_answer_in_order() {
    let program = quiet();
    fill_the_feed(&program, 100);
    let mut stream = raw(program.addr());
    for _ in 0..10 {
        stream.write_all(GET_HOME).expect("it is read");
    }
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it is read");
    // Longer than any timeout of the loop. Meanwhile the responses wait in the socket and in the
    // outbox.
    std::thread::sleep(Duration::from_millis(700));
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("all answers");
    assert_eq!(split_answers(&bytes), [200; 11]);
    is_well(&program);
}

#[test]
fn clients_that_never_read_hold_up_nobody() {
    let program = quiet();
    fill_the_feed(&program, 10);
    let mut streams: Vec<_> = (0..10).map(|_| raw(program.addr())).collect();
    for stream in &mut streams {
        // The responses exceed the sockets' buffers.
        socket2::SockRef::from(&*stream).set_recv_buffer_size(4096).expect("a small buffer");
        stream.write_all(&GET_HOME.repeat(60)).expect("it is read");
    }
    is_well(&program);
    drop(streams);
    is_well(&program);
}

#[test]
fn a_client_that_asks_for_more_than_it_may_let_pile_up_loses_its_connection_and_harms_nobody() {
    let program = quiet();
    fill_the_feed(&program, 100);
    let mut greedy = raw(program.addr());
    greedy.write_all(&GET_HOME.repeat(80)).expect("it is read");
    is_well(&program);
    let mut first = [0; 12];
    greedy.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    is_well(&program);
}

#[test]
fn bodies_that_nobody_wants_and_that_never_end_keep_no_other_refusal_waiting() {
    let program = quiet();
    let head = b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n";
    let mut streams: Vec<_> = (0..100).map(|_| raw(program.addr())).collect();
    for stream in &mut streams {
        stream.write_all(head).expect("it is read");
    }
    let began = Instant::now();
    let mut honest = raw(program.addr());
    honest.write_all(head).expect("it is read");
    honest.write_all(&[b'x'; 20_000]).expect("it is read");
    read_until(&mut honest, "HTTP/1.1 413");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    is_well(&program);
}

#[test]
fn a_request_behind_a_refused_one_on_the_same_connection_stops_nothing() {
    let program = quiet();
    let head = b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n";
    let mut streams: Vec<_> = (0..70).map(|_| raw(program.addr())).collect();
    for stream in &mut streams {
        stream.write_all(head).expect("it is read");
        stream.write_all(&[b'x'; 20_000]).expect("it is read");
        stream.write_all(GET_HOME).expect("it is read");
        stream.write_all(GET_HOME).expect("it is read");
    }
    is_well(&program);
    let exit = program.terminate();
    assert!(exit.status.success() && exit.took < Duration::from_secs(6), "{:?}", exit.took);
}

#[test]
fn a_body_that_breaks_off_is_a_408_and_a_huge_one_that_breaks_off_is_survived() {
    let program = quiet();
    for length in ["2000", "20000", "999999999999999"] {
        let mut stream = raw(program.addr());
        write!(stream, "POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nxx")
            .expect("it is read");
        stream.shutdown(std::net::Shutdown::Write).expect("a half-closed connection");
        let expected = if length == "2000" { "HTTP/1.1 408" } else { "HTTP/1.1 413" };
        read_until(&mut stream, expected);
    }
    is_well(&program);
}

#[test]
fn pipelining_without_end_does_not_keep_the_program_from_ending() {
    let program = quiet();
    let mut stream = raw(program.addr());
    let mut reader = stream.try_clone().expect("a second handle");
    let (answered, first_answer) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while reader.read(&mut buffer).is_ok_and(|count| count > 0) {
            let _ = answered.send(());
        }
    });
    // The thread ends with the connection, which ends with the program.
    let writing = std::thread::spawn(move || while stream.write_all(&GET_HOME.repeat(50)).is_ok() {});
    first_answer.recv_timeout(SOON).expect("an answer");
    let exit = program.terminate();
    assert!(exit.status.success() && exit.took < Duration::from_secs(6), "{:?} {}", exit.took, exit.stderr);
    writing.join().expect("the end of the flood");
    reading.join().expect("the end of its answers");
}

#[test]
fn clients_that_hang_up_at_once_leave_no_error_in_the_log() {
    let program = Setup::default().toml("[console]\nenabled = false\n").start();
    for _ in 0..100 {
        let mut stream = raw(program.addr());
        stream.write_all(GET_HOME).expect("it is read");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset on close");
    }
    is_well(&program);
    let exit = program.terminate();
    assert!(!exit.stderr.contains("ERROR") && !exit.stderr.contains("panic"), "{}", exit.stderr);
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cruddur"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    command.env_clear().args(["--listen", &addr.to_string()]).stdout(std::process::Stdio::null());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("the program");
    wait_until(Duration::from_secs(10), || TcpStream::connect(addr).is_ok());
    let mut client = Client::connect(addr);
    for _ in 0..3000 {
        assert_eq!(client.get("/api/activities/home").status, 200);
    }
    let began = Instant::now();
    let script = format!("kill -TERM {}", child.id());
    assert!(std::process::Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell").success());
    let status = child.wait().expect("its end");
    assert!(status.success() && began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

//! Strangers at the socket: no client holds, fills or ends the process, and what tiny_http cannot be cured of is cured by
//! a renewal of the process.

#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, Collector, Program, Reply, SOON, Setup, get, wait_until};

const HOME: &str = "/api/activities/home";
pub(crate) const GET_HOME: &[u8] = b"GET /api/activities/home HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// A request line that blocks a thread of tiny_http for ever.
pub(crate) const HTTP_2: &[u8] = b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n";
/// Time for one request while others misbehave, on a slow machine.
const PROMPT: Duration = Duration::from_secs(1);

pub(crate) fn quiet() -> Setup {
    Setup::default().env("RUST_LOG", "warn").toml("[console]\nenabled = false\n")
}

pub(crate) fn with_honeycomb(collector: &Collector) -> Setup {
    Setup::default()
        .toml("[console]\nenabled = false\n[honeycomb]\nenabled = true\n")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("HONEYCOMB_API_KEY", "no-real-key")
        .env("OTEL_BSP_SCHEDULE_DELAY", 20)
}

pub(crate) fn process(program: &Program) -> Value {
    program.get("/telemetry/status").json()["process"].take()
}

pub(crate) fn raw(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    stream.set_write_timeout(Some(SOON)).expect("a time limit");
    stream
}

/// Blocks one thread after the other, at most 60, until `condition` holds. Returns false if it did not.
pub(crate) fn block_threads(program: &Program, condition: impl Fn() -> bool) -> bool {
    let mut blocked = 0;
    wait_until(SOON, || {
        if blocked < 60 {
            let _ = raw(program.addr()).write_all(HTTP_2);
            blocked += 1;
        }
        condition()
    })
}

/// True once the server has closed the connection.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket option");
    !matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[track_caller]
pub(crate) fn is_prompt(program: &Program) {
    let began = Instant::now();
    assert_eq!(get(program.addr(), "/health").status, 200);
    assert!(began.elapsed() < PROMPT, "a request took {:?}", began.elapsed());
}

#[test]
fn a_client_that_pipelines_without_end_does_not_delay_another() {
    let program = quiet().start();
    let stop = Arc::new(AtomicBool::new(false));
    let addr = program.addr();
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let mut stream = raw(addr);
                    while !stop.load(Ordering::Acquire) && stream.write_all(&GET_HOME.repeat(50)).is_ok() {}
                }
            })
        })
        .collect();
    for _ in 0..30 {
        is_prompt(&program);
    }
    stop.store(true, Ordering::Release);
    floods.into_iter().for_each(|flood| flood.join().expect("the end of the flood"));
    assert!(program.rss_kb() < 64 * 1024, "{} kB", program.rss_kb());
}

#[test]
fn clients_that_pipeline_without_end_and_read_nothing_neither_fill_the_process_nor_delay_another() {
    let program = quiet().start();
    let addr = program.addr();
    let before = program.rss_kb();
    // As many as a machine has cores, and more: together they send faster than one thread can
    // discard.
    let floods: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = raw(addr);
                // The writer may be stuck when its connection is closed.
                stream.set_write_timeout(Some(PROMPT)).expect("a time limit");
                while stream.write_all(&GET_HOME.repeat(200)).is_ok() {}
            })
        })
        .collect();
    for _ in 0..30 {
        is_prompt(&program);
    }
    let grown = program.rss_kb().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} kB more");
    floods.into_iter().for_each(|flood| flood.join().expect("the end of the flood"));
    // A flood is closed for its requests, for what it sends, or for the responses that it does not read.
    let closed = &process(&program)["connections_closed"];
    let count = |reason: &str| closed[reason].as_u64().expect("a number");
    let of_floods: u64 = ["pipelining", "greedy", "not_reading"].map(count).into_iter().sum();
    assert!(of_floods >= 6 && count("pipelining") > 0, "{closed:#}");
}

#[test]
fn a_client_with_too_many_requests_at_once_gets_some_responses_and_then_the_end() {
    let program = quiet().start();
    let mut stream = raw(program.addr());
    let mut reader = stream.try_clone().expect("a duplicate");
    // It reads meanwhile: the system drops what is unread when the connection is reset.
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        bytes
    });
    let _ = stream.write_all(&GET_HOME.repeat(5000));
    let bytes = reader.join().expect("the end of the responses");
    let count = bytes.windows(15).filter(|window| *window == b"HTTP/1.1 200 OK").count();
    assert!((1..5000).contains(&count), "{count} responses; {:#}", process(&program));
    is_prompt(&program);
}

#[test]
fn an_endless_head_is_cut_before_memory_grows() {
    let program = quiet().start();
    let before = program.rss_kb();
    for piece in [&[b'b'; 64 * 1024][..], &b"a: b\r\n".repeat(10_000)] {
        let mut stream = raw(program.addr());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: b").expect("it is read");
        let mut peak = 0;
        let began = Instant::now();
        while stream.write_all(piece).is_ok() {
            peak = peak.max(program.rss_kb());
            assert!(began.elapsed() < SOON, "the head was read for {:?}, {peak} kB", began.elapsed());
        }
        assert!(peak.saturating_sub(before) < 64 * 1024, "{before} kB grew to {peak} kB");
        is_prompt(&program);
    }
    assert_eq!(process(&program)["connections_closed"]["greedy"], 2);
}

#[test]
fn of_too_many_connections_the_oldest_idle_ones_are_closed_and_a_new_one_is_served() {
    // A sixth of the limit: 20 connections.
    let program = quiet().descriptors(120).start();
    let mut oldest = raw(program.addr());
    let mut second = raw(program.addr());
    assert!(wait_until(SOON, || process(&program)["connections"].as_u64() >= Some(2)));
    let mut others: Vec<_> = (0..24).map(|_| raw(program.addr())).collect();
    assert!(wait_until(SOON, || is_closed(&mut oldest) && is_closed(&mut second)), "{:#}", process(&program));
    is_prompt(&program);
    let open = others.iter_mut().filter_map(|stream| (!is_closed(stream)).then_some(())).count();
    assert!(open >= 15, "{open} of the newer connections are open");
    assert!(process(&program)["connections_closed"]["over_cap"].as_u64() >= Some(2));
}

#[test]
fn five_hundred_and_ten_idle_connections_do_not_end_a_process_with_256_descriptors() {
    let program = quiet().descriptors(256).start();
    let pid = program.pid();
    // So many in one moment may leave no descriptor for the thread that accepts. The process renews itself then, and a
    // connection that was accepted before may get no answer.
    let streams: Vec<_> = (0..510).map(|_| raw(program.addr())).collect();
    let is_served = || {
        let mut client = Client::connect(program.addr());
        client.try_send_raw(GET_HOME).is_ok() && client.try_read_answer().is_ok_and(|answer| answer.status == 200)
    };
    assert!(wait_until(SOON, is_served));
    is_prompt(&program);
    drop(streams);
    is_prompt(&program);
    assert_eq!(pid, program.pid());
    assert!(program.terminate().status.success());
}

#[test]
fn request_lines_that_block_threads_lead_to_a_renewal_that_loses_no_request_and_no_span() {
    let collector = Collector::ok();
    let program = with_honeycomb(&collector).descriptors(256).start();
    let mut traces = Vec::new();
    let mut blocked = 0;
    let renewed = wait_until(SOON * 2, || {
        if blocked < 60 {
            raw(program.addr()).write_all(HTTP_2).expect("it is read");
            blocked += 1;
        }
        // A fresh connection each time; `get` fails the test when it gets no answer.
        let answer = get(program.addr(), HOME);
        assert_eq!(answer.status, 200);
        traces.push(answer.trace_id().to_owned());
        program.lives() == 2
    });
    assert!(renewed, "{:#}", process(&program));
    for _ in 0..10 {
        traces.push(get(program.addr(), HOME).trace_id().to_owned());
    }
    let process = process(&program);
    assert_eq!((&process["renewals"], process["last_renewal"].is_string()), (&1.into(), true), "{process:#}");
    assert!(process["descriptors"]["used"].as_u64() < Some(128), "{process:#}");
    let exit = program.terminate();
    assert!(exit.status.success(), "{}", exit.stderr);
    let lines: Vec<_> = exit.stderr.lines().filter(|line| line.contains(" renewal: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains("descriptors") && lines[0].contains("lost"), "{lines:?}");
    // Two spans for each request, from one life or the other.
    let mut seen: HashMap<String, usize> = HashMap::new();
    for span in collector.spans() {
        *seen.entry(span["traceId"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    let missing = traces.iter().filter(|trace| seen.get(*trace) != Some(&2)).count();
    assert_eq!(missing, 0, "of {} traces", traces.len());
}

#[test]
fn a_stop_signal_during_a_drip_of_such_lines_ends_the_process_in_time() {
    let program = quiet().descriptors(128).start();
    let addr = program.addr();
    let drip = std::thread::spawn(move || {
        while let Ok(mut stream) = TcpStream::connect(addr) {
            let _ = stream.write_all(HTTP_2);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(wait_until(SOON * 2, || program.stderr().contains(" renewal: ")), "{}", program.stderr());
    assert!(wait_until(SOON, || program.lives() > 1), "{}", program.stderr());
    let exit = program.terminate();
    assert!(exit.status.success() && exit.took < Duration::from_secs(6), "{:?} {}", exit.took, exit.stderr);
    drip.join().expect("the end of the drip");
}

#[test]
fn a_large_body_that_is_abandoned_costs_no_descriptor_for_good() {
    let program = quiet().start();
    let before = process(&program)["descriptors"]["used"].as_u64().expect("a number");
    let mut streams: Vec<_> = (0..20).map(|_| raw(program.addr())).collect();
    for stream in &mut streams {
        stream
            .write_all(b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000\r\n\r\nxx")
            .expect("it is read");
        stream.read_exact(&mut [0; 25]).expect("an answer");
    }
    assert!(wait_until(SOON, || process(&program)["connections"].as_u64() >= Some(20)));
    drop(streams);
    let is_free = || process(&program)["descriptors"]["used"].as_u64() < Some(before + 10);
    assert!(wait_until(SOON, is_free), "{:#}, {before} before", process(&program));
    assert!(program.rss_kb() < 64 * 1024, "{} kB", program.rss_kb());
}

#[test]
fn a_stop_signal_that_comes_before_the_renewed_program_is_ready_is_not_lost() {
    let program = quiet().descriptors(128).start();
    let addr = program.addr();
    let environment = format!("/proc/{}/environ", program.pid());
    let is_renewed = || {
        let variables = std::fs::read(&environment).expect("it runs");
        variables.windows(16).any(|bytes| bytes == b"LISTEN_RENEWALS=")
    };
    while !program.stderr().contains(" renewal: ") {
        let _ = raw(addr).write_all(HTTP_2);
    }
    let began = Instant::now();
    // Not a pause between two looks: the new program is ready within milliseconds.
    while !is_renewed() {
        assert!(began.elapsed() < SOON, "{}", program.stderr());
    }
    let exit = program.terminate();
    assert_eq!(exit.status.code(), Some(0), "{:?} {}", exit.status, exit.stderr);
    assert!(exit.took < Duration::from_secs(6), "{:?}", exit.took);
}

#[test]
fn a_socket_that_the_process_is_started_with_is_served_and_stays_open_for_the_next_process() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = socket.local_addr().expect("an address");
    let share = || socket.try_clone().expect("a descriptor");
    // A client that connects before the program is there waits for it.
    for life in 0..3 {
        let mut early = Client::connect(addr);
        early.send("GET", "/health", &[], b"");
        let program = quiet().socket(share()).start();
        assert_eq!(program.addr(), addr);
        assert_eq!(early.read_answer().status, 200, "in life {life}");
        is_prompt(&program);
        let exit = program.terminate();
        assert!(exit.status.success() && exit.took < Duration::from_secs(6), "{:?} {}", exit.took, exit.stderr);
    }
}

#[test]
fn a_connection_that_is_kept_alive_is_served_after_eleven_seconds_of_silence() {
    let program = quiet().start();
    let mut client = Client::connect(program.addr());
    assert_eq!(client.get(HOME).status, 200);
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(client.get(HOME).status, 200);
}

#[test]
fn a_slow_but_honest_upload_is_taken() {
    let program = quiet().start();
    let body = serde_json::json!({ "message": "\u{1f980}".repeat(280), "ttl": "1-day" }).to_string();
    let mut stream = raw(program.addr());
    write!(
        stream,
        "POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("it is read");
    for piece in body.as_bytes().chunks(body.len() / 30) {
        stream.write_all(piece).expect("it is read");
        std::thread::sleep(Duration::from_millis(60));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_status_shows_the_limits_of_the_process() {
    let program = quiet().descriptors(300).start();
    let process = process(&program);
    assert_eq!((&process["descriptors"]["soft"], &process["descriptors"]["hard"]), (&300.into(), &300.into()));
    assert!(process["threads"].as_u64() >= Some(5) && process["renewals"] == 0, "{process:#}");
}

#[test]
fn a_socket_of_the_wrong_kind_is_named_and_the_next_step_is_to_pass_a_tcp_socket() {
    let exit = quiet().socket(UdpSocket::bind("127.0.0.1:0").expect("a free port")).run();
    assert_eq!(exit.status.code(), Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("the inherited socket is of the wrong kind"), "{}", exit.stderr);
    assert!(exit.stderr.contains("next: pass one listening TCP socket"), "{}", exit.stderr);
}

#[test]
fn a_second_stop_signal_ends_the_process_while_a_backend_hangs() {
    let collector = Collector::start([Reply::Hang]);
    let program = with_honeycomb(&collector).start();
    assert_eq!(get(program.addr(), HOME).status, 200);
    collector.wait_for(|requests| !requests.is_empty(), SOON);
    program.signal("TERM");
    assert!(wait_until(SOON, || TcpStream::connect(program.addr()).is_err()), "{}", program.stderr());
    let exit = program.terminate();
    assert_eq!(exit.status.code(), Some(128 + 15), "{:?} {}", exit.status, exit.stderr);
}

#[test]
fn a_program_that_has_renewed_itself_refuses_connections_after_a_stop_signal() {
    let collector = Collector::start([Reply::Hang]);
    let program = with_honeycomb(&collector).descriptors(128).start();
    let is_renewed = block_threads(&program, || program.lives() == 2);
    assert!(is_renewed, "{}", program.stderr());
    assert_eq!(get(program.addr(), HOME).status, 200);
    collector.wait_for(|requests| !requests.is_empty(), SOON);
    let lines_of_counts = || program.stderr().matches(" delivered, ").count();
    let before = lines_of_counts();
    program.signal("TERM");
    assert!(wait_until(SOON, || TcpStream::connect(program.addr()).is_err()), "{}", program.stderr());
    assert_eq!(lines_of_counts(), before, "it must still wait for the backend: {}", program.stderr());
}

#[test]
fn a_body_that_does_not_come_is_counted_once_when_its_connection_is_closed() {
    let program = quiet().start();
    let mut streams: Vec<_> = (0..3).map(|_| raw(program.addr())).collect();
    for stream in &mut streams {
        stream
            .write_all(b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\nxx")
            .expect("it is read");
    }
    for stream in &mut streams {
        // The response, then the end.
        stream.set_read_timeout(Some(SOON * 2)).expect("a time limit");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(
        wait_until(SOON, || process(&program)["connections_closed"]["not_reading"].as_u64() >= Some(3)),
        "{:#}",
        process(&program)
    );
    assert_eq!(process(&program)["connections_closed"]["not_reading"], 3);
}

#[test]
fn a_renewal_closes_open_connections_before_it_waits_for_a_backend_that_hangs() {
    let collector = Collector::start([Reply::Hang]);
    let program = with_honeycomb(&collector).descriptors(128).start();
    let mut kept = raw(program.addr());
    kept.write_all(GET_HOME).expect("it is read");
    collector.wait_for(|requests| !requests.is_empty(), SOON);
    let renews = block_threads(&program, || program.stderr().contains(" renewal: "));
    assert!(renews, "{:#}", process(&program));
    // The response, then the end.
    kept.read_to_end(&mut Vec::new()).expect("it is closed");
    assert_eq!(program.lives(), 1, "{}", program.stderr());
    assert_eq!(get(program.addr(), HOME).status, 200);
}

#[test]
fn bodies_that_never_come_do_not_keep_the_program_from_ending() {
    let program = quiet().start();
    let request =
        b"POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n{";
    let streams: Vec<_> = (0..320)
        .map(|_| {
            let mut stream = raw(program.addr());
            let _ = stream.write_all(request);
            stream
        })
        .collect();
    is_prompt(&program);
    let since = Instant::now();
    assert!(program.terminate().status.success());
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    drop(streams);
}

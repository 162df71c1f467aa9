//! The program is one file. It needs no loader, no library and no `/etc`, and still supports HTTPS
//! and DNS.

#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::process::Command;
use std::thread;

use crate::support::{AUTHORITY, Collector, Program, Reply, SOON, Setup};

const SETTINGS: &str = "[honeycomb]\nenabled = true\nschedule_delay = 50\n";

#[test]
fn the_program_needs_no_loader_and_no_library() {
    if let Err(reason) = c_library_is_there_to_be_linked() {
        return println!("skipped: {reason}");
    }
    let program = std::fs::read(env!("CARGO_BIN_EXE_cruddur")).expect("the program");
    assert!(!names_a_loader(&program), "it is linked dynamically; see .cargo/static-binary");
    // The test binary is linked as usual, which means dynamically with glibc. It shows that the
    // check above can detect a loader.
    if cfg!(all(target_env = "gnu", not(target_feature = "crt-static"))) {
        let test = std::fs::read(std::env::current_exe().expect("this program")).expect("this program");
        assert!(names_a_loader(&test));
    }
}

#[test]
fn in_an_empty_root_it_answers_and_delivers_over_https() {
    let collector = Collector::start_with_tls([Reply::ok()]);
    let Some(program) = in_root(&collector.url(), &[]) else { return };
    assert_eq!(program.get("/health").status, 200);
    delivers(&program, &collector);
}

#[test]
fn in_an_empty_root_it_trusts_nobody_whom_it_was_not_told_to_trust() {
    let collector = Collector::start_with_tls([Reply::ok()]);
    let setup = setup(&collector.url()).env("OTEL_EXPORTER_OTLP_CERTIFICATE", "");
    let Some(program) = start_in_root(setup, &[]) else { return };
    program.get("/api/activities/home");
    program.wait_for_stderr("UnknownIssuer");
    assert_eq!(collector.requests().len(), 0);
}

#[test]
fn in_an_empty_root_names_come_from_etc_hosts() {
    let collector = Collector::start_with_tls([Reply::ok()]);
    let url = format!("https://collector.test:{}", collector.port());
    let Some(program) = in_root(&url, &[("/etc/hosts", "127.0.0.1 localhost collector.test\n")]) else { return };
    delivers(&program, &collector);
}

#[test]
fn in_an_empty_root_names_come_from_dns() {
    // The port is 53 because resolv.conf cannot name another.
    let server = match UdpSocket::bind("127.53.53.53:53") {
        Ok(server) => server,
        Err(error) => return println!("skipped: no name server can listen on port 53 of a loopback address: {error}"),
    };
    thread::spawn(move || answer_every_question_with_this_machine(&server));
    let collector = Collector::start_with_tls([Reply::ok()]);
    let url = format!("https://collector.test:{}", collector.port());
    let Some(program) = in_root(&url, &[("/etc/resolv.conf", "nameserver 127.53.53.53\n")]) else { return };
    delivers(&program, &collector);
}

fn delivers(program: &Program, collector: &Collector) {
    let answer = program.get("/api/activities/home");
    let trace_id = answer.trace_id();
    let of_this_request = |span: &serde_json::Value| span["traceId"] == trace_id;
    collector.wait_for(
        |requests| requests.iter().flat_map(|request| request.spans()).any(|span| of_this_request(&span)),
        SOON,
    );
    program.wait_for_backend("honeycomb", |backend| backend["delivered"].as_u64().is_some_and(|spans| spans >= 2));
}

fn in_root(url: &str, files: &[(&'static str, &str)]) -> Option<Program> {
    start_in_root(setup(url), files)
}

fn setup(url: &str) -> Setup {
    Program::setup()
        .toml(SETTINGS)
        .env("HONEYCOMB_API_KEY", "no-real-key")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem")
}

/// Returns `None` and prints the reason if this machine cannot run the test.
fn start_in_root(setup: Setup, files: &[(&'static str, &str)]) -> Option<Program> {
    let setup = c_library_is_there_to_be_linked()
        .and_then(|()| setup.in_empty_root(&[files, &[("/ca.pem", AUTHORITY)]].concat()));
    match setup {
        Ok(setup) => Some(setup.start()),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Makes the same check as `.cargo/static-binary`.
fn c_library_is_there_to_be_linked() -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let found = Command::new(compiler).arg("-print-file-name=libc.a").output();
    match found {
        Ok(found) if found.stdout.starts_with(b"/") => Ok(()),
        _ => Err("there is no libc.a on this machine, so the program was linked dynamically".to_owned()),
    }
}

/// True if an ELF file has a program header of type PT_INTERP (3), which names the loader.
fn names_a_loader(elf: &[u8]) -> bool {
    assert!(elf.starts_with(b"\x7fELF\x02\x01"), "64 bits, little-endian");
    let number =
        |at: usize, bytes: usize| elf[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|header| number(table + header * size, 4) == 3)
}

/// A name server that resolves every name to 127.0.0.1, and has no IPv6 address for any name.
fn answer_every_question_with_this_machine(server: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, asker)) = server.recv_from(&mut buffer) {
        let name = buffer[12..length].iter().position(|byte| *byte == 0).expect("a name ends with an empty label");
        let question = &buffer[12..12 + name + 5];
        let is_ipv4 = question[name + 1..name + 3] == [0, 1];
        // The id, then the flags (a response, recursion available), then one question and the
        // number of answers.
        let mut answer = [&buffer[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0], question].concat();
        if is_ipv4 {
            // The name of the question again, type A, class IN, a TTL of one minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        let _ = server.send_to(&answer, asker);
    }
}

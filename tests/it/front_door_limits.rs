//! The limits of the process: what is closed, and what a renewal keeps, when memory or descriptors run out.

#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::front_door::{GET_HOME, HTTP_2, block_threads, is_closed, is_prompt, process, quiet, raw, with_honeycomb};
use crate::support::{Client, Collector, Program, Reply, SOON, get, wait_until};

/// The value of an environment variable of the running program, after a renewal.
fn environment(program: &Program, name: &str) -> Option<String> {
    let all = std::fs::read(format!("/proc/{}/environ", program.pid())).expect("it runs");
    let all = String::from_utf8_lossy(&all).into_owned();
    all.split('\0').find_map(|variable| variable.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[test]
fn when_descriptors_run_out_in_one_moment_new_clients_wait_and_nothing_that_was_written_is_lost() {
    let program = quiet().env("RUST_LOG", "warn,accept=debug").descriptors(256).start();
    let body = br#"{"message":"still here","ttl":"7-days"}"#;
    let written = Client::connect(program.addr()).post("/api/activities", body);
    assert_eq!(written.status, 200);
    let mut kept = raw(program.addr());
    kept.write_all(GET_HOME).expect("it is read");
    kept.read_exact(&mut [0; 12]).expect("a response");
    // All of them wait in the backlog before the program can accept one.
    program.signal("STOP");
    let crowd: Vec<TcpStream> = (0..200).map(|_| raw(program.addr())).collect();
    program.signal("CONT");
    assert!(wait_until(SOON, || program.stderr().contains("connections waited for")), "{}", program.stderr());
    is_prompt(&program);
    let path = format!("/api/activities/{}", written.json()["uuid"].as_str().expect("an id"));
    assert_eq!(get(program.addr(), &path).status, 200, "{}", program.stderr());
    assert_eq!((program.lives(), &process(&program)["renewals"]), (1, &0.into()), "{}", program.stderr());
    drop(crowd);
    assert!(program.terminate().status.success());
}

#[test]
fn connections_without_a_request_are_closed_while_memory_grows() {
    // The backend hangs, so that its queue keeps every trace.
    let collector = Collector::start([Reply::Hang]);
    let program = with_honeycomb(&collector).start();
    let mut silent: Vec<_> = (0..3).map(|_| raw(program.addr())).collect();
    assert!(wait_until(SOON, || process(&program)["connections"].as_u64() >= Some(3)));
    let mut busy = Client::connect(program.addr());
    let path = format!("/api/activities/home?{}", "long=query&".repeat(700));
    let are_closed = wait_until(SOON, || {
        for _ in 0..50 {
            assert_eq!(busy.get(&path).status, 200);
        }
        silent.iter_mut().all(is_closed)
    });
    assert!(are_closed, "{:#}", process(&program));
    let process = process(&program);
    let closed = &process["connections_closed"];
    assert!(closed["memory"].as_u64() >= Some(3) && closed["idle"] == 0, "{process:#}");
    assert_eq!(process["renewals"], 0);
    assert_eq!(busy.get("/health").status, 200);
}

#[test]
fn settings_that_are_saved_during_a_renewal_apply_after_it_and_sighup_does_not_end_the_program() {
    let collector = Collector::start([Reply::Hang]);
    let program = with_honeycomb(&collector).descriptors(128).start();
    assert_eq!(get(program.addr(), "/api/activities/home").status, 200);
    collector.wait_for(|requests| !requests.is_empty(), SOON);
    let renews = block_threads(&program, || program.stderr().contains(" renewal: "));
    assert!(renews, "{:#}", process(&program));
    // It waits for the backend, at least a second.
    assert_eq!(program.lives(), 1, "{}", program.stderr());
    program.save("[console]\nenabled = false\n");
    for _ in 0..3 {
        program.signal("HUP");
    }
    assert!(wait_until(SOON, || program.lives() == 2), "{}", program.stderr());
    is_prompt(&program);
    assert_eq!(program.backend("honeycomb")["state"], "off", "{}", program.stderr());
    // The signal still works.
    let before = program.stderr().matches(" settings: reloaded ").count();
    program.save("service_name = \"after\"\n[console]\nenabled = false\n");
    program.signal("HUP");
    assert!(wait_until(SOON, || program.stderr().matches(" settings: reloaded ").count() > before));
    assert!(program.terminate().status.success());
}

#[test]
fn a_socket_whose_number_is_not_3_outlasts_a_second_renewal() {
    let program = quiet().descriptors(128).descriptor_3_taken().start();
    let addr = program.addr();
    let mut blocked = 0;
    let renewed_twice = wait_until(SOON * 2, || {
        // As many as exhaust the descriptors of one life, and not many more.
        if blocked < 60 * program.lives() {
            let _ = raw(addr).write_all(HTTP_2);
            blocked += 1;
        }
        program.lives() >= 3
    });
    assert!(renewed_twice, "{}", program.stderr());
    let number: u32 =
        environment(&program, "LISTEN_FDS_FIRST_FD").and_then(|text| text.parse().ok()).expect("a number");
    assert!(number > 3, "descriptor {number}");
    let is_served = || {
        let mut client = Client::connect(addr);
        client.try_send_raw(GET_HOME).is_ok() && client.try_read_answer().is_ok_and(|answer| answer.status == 200)
    };
    assert!(wait_until(SOON, is_served), "{}", program.stderr());
    assert!(program.terminate().status.success());
}

#[test]
fn bodies_that_can_only_be_kept_lead_to_a_renewal_that_loses_no_request() {
    let program = quiet().descriptors(256).start();
    let head = b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\nxx";
    let mut sent = 0;
    let renewed = wait_until(SOON * 2, || {
        // More than a quarter of the descriptors, and less than exhausts them.
        if sent < 60 {
            let mut client = Client::connect(program.addr());
            client.send_raw(head);
            assert_eq!(client.read_answer().status, 413);
            sent += 1;
        }
        assert_eq!(get(program.addr(), "/health").status, 200);
        program.lives() == 2
    });
    assert!(renewed, "{:#}", process(&program));
    let process = process(&program);
    let cause = process["last_renewal"].as_str().unwrap_or_default();
    assert!(cause.contains("descriptors run out"), "{process:#}");
    assert!(process["descriptors"]["used"].as_u64() < Some(128), "{process:#}");
}

//! `cruddur health` tells a container without curl, or a supervisor, whether the server responds.

use crate::support::{Collector, Exit, Program, Reply, get};

fn health(args: &[&str], env: &[(&str, &str)]) -> Exit {
    Program::run_to_end(&[&["health"], args].concat(), env, None)
}

#[test]
fn a_server_that_answers_is_well_wherever_it_was_told_to_listen() {
    let program = Program::setup().env("CRUDDUR_LISTEN", "0.0.0.0:0").start();
    let port = program.addr().port();
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let listen = format!("{host}:{port}");
        // A proxy from the environment does not apply to this machine.
        let proxy = ("HTTP_PROXY", "http://127.0.0.1:1");
        for exit in [health(&["--listen", &listen], &[proxy]), health(&[], &[("CRUDDUR_LISTEN", &listen), proxy])] {
            assert_eq!(exit.status.code(), Some(0), "{listen}: {}", exit.stderr);
            assert!(exit.stdout.ends_with("/health is healthy\n"), "{}", exit.stdout);
        }
    }
    assert_eq!(
        get(([127, 0, 0, 1], port).into(), "/telemetry/status").json()["requests"],
        0,
        "nobody traces a health check"
    );
}

#[test]
fn what_does_not_answer_as_it_should_is_not_well_and_the_line_says_what_next() {
    let somebody_else = Collector::start([Reply::ok()]);
    let breaks = Collector::start([Reply::Reset]);
    let hangs = Collector::start([Reply::Hang]);
    for (collector, said) in [
        (&somebody_else, "/health, but not from cruddur; next: "),
        (&breaks, "connection closed before a response came: http://"),
        (&hangs, "timed out after 2 s: http://"),
    ] {
        let exit = health(&["--listen", collector.url().trim_start_matches("http://")], &[]);
        assert_eq!((exit.status.code(), exit.stdout.as_str()), (Some(1), ""), "{}", exit.stderr);
        assert!(exit.stderr.contains(said) && exit.stderr.contains("; next: "), "{}", exit.stderr);
        assert_eq!(exit.stderr.lines().count(), 1, "{}", exit.stderr);
    }
    // Port 1 needs privileges to listen on, so connections to it are refused.
    let exit = health(&["--listen", "127.0.0.1:1"], &[]);
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("connection refused by http://127.0.0.1:1/health; next: "), "{}", exit.stderr);
    for nowhere in ["127.0.0.1:0", "nonsense"] {
        let exit = health(&["--listen", nowhere], &[]);
        assert_eq!(exit.status.code(), Some(2), "{}", exit.stderr);
        assert!(exit.stderr.contains(nowhere) && exit.stderr.contains("host:port"), "{}", exit.stderr);
    }
}

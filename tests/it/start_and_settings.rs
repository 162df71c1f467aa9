//! The program reports where it listens, which backends are on, and what is wrong with its
//! settings, before it opens a port.

use std::process::Command;

use serde_json::Value;

use crate::support::{Program, TempDir};

const HOME: &str = "/api/activities/home";

#[test]
fn it_says_where_it_listens_and_what_each_backend_does() {
    let program = Program::start();
    program.wait_for_stderr("honeycomb");
    let stderr = program.stderr();
    for (backend, state) in [("console", "on"), ("honeycomb", "off")] {
        let is_row = |line: &&str| line.split_whitespace().next() == Some(backend);
        let row = stderr.lines().find(is_row).unwrap_or_else(|| panic!("no row for {backend}:\n{stderr}"));
        assert!(row.split_whitespace().any(|word| word == state), "{row}");
    }
    let exit = program.terminate();
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stderr);
}

#[test]
fn the_address_may_come_from_the_environment() {
    let program = Program::setup().env("CRUDDUR_LISTEN", "127.0.0.1:0").start();
    assert_eq!(program.get("/health").status, 200);
}

#[test]
fn the_settings_may_come_from_the_environment() {
    let dir = TempDir::new();
    let file = dir.write("elsewhere.toml", "service_name = \"from-elsewhere\"\n");
    let program = Program::setup().env("CRUDDUR_CONFIG", file.display()).start();
    assert_eq!(program.get("/telemetry/status").json()["service_name"], "from-elsewhere");
}

#[test]
fn the_environment_beats_the_file() {
    let program = Program::setup()
        .toml("service_name = \"from-the-file\"\n")
        .env("OTEL_SERVICE_NAME", "from-the-environment")
        .start();
    assert_eq!(program.get("/telemetry/status").json()["service_name"], "from-the-environment");
    let program = Program::setup().toml("service_name = \"from-the-file\"\n").env("OTEL_SERVICE_NAME", "").start();
    assert_eq!(program.get("/telemetry/status").json()["service_name"], "from-the-file");
}

#[test]
fn a_mistake_in_the_settings_ends_it_with_2_and_the_place() {
    for (toml, place, words) in [
        ("[console]\nenabled = yes\n", "telemetry.toml:2:11: ", [""; 0].as_slice()),
        ("[console]\nenabled = true\nformat = \"tre\"\n", "telemetry.toml:3:", &["tree", "json"]),
        ("[honeycomb]\nenabled = true\nenabld = 1\n", "telemetry.toml:3:1: ", &["enabld", "enabled"]),
        ("[honeycom]\nenabled = true\n", "telemetry.toml:1:", &["honeycom", "honeycomb"]),
        ("[honeycomb]\nenabled = \"true\"\n", "telemetry.toml:2:", &["enabled"]),
    ] {
        let exit = Program::run_to_end(&[], &[], Some(toml));
        assert_eq!(exit.status.code(), Some(2), "{toml}: {}", exit.stderr);
        assert!(exit.stderr.contains(place), "no {place} in {}", exit.stderr);
        for word in words {
            assert!(exit.stderr.contains(word), "no {word} in {}", exit.stderr);
        }
        assert!(!exit.stderr.contains("listening on"), "{}", exit.stderr);
    }
}

#[test]
fn a_settings_file_that_was_named_has_to_be_there() {
    let exit = Program::run_to_end(&["--config", "nowhere.toml"], &[], None);
    assert_eq!(exit.status.code(), Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("nowhere.toml"), "{}", exit.stderr);
}

#[cfg(unix)]
#[test]
fn a_settings_file_that_cannot_be_looked_for_is_not_taken_for_none() {
    let dir = TempDir::new();
    // A link that leads to itself. A directory without permission causes the same kind of error,
    // but not for root.
    std::os::unix::fs::symlink("telemetry.toml", dir.path().join("telemetry.toml")).expect("a link");
    let exit = Command::new(env!("CARGO_BIN_EXE_cruddur"))
        .env("CRUDDUR_LISTEN", "127.0.0.1:0")
        .current_dir(dir.path())
        .arg("check")
        .output()
        .expect("it ends");
    let stderr = String::from_utf8_lossy(&exit.stderr);
    assert_eq!(exit.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("cruddur: ") && stderr.contains(": telemetry.toml; next: "), "{stderr}");
}

#[test]
fn a_command_line_that_makes_no_sense_ends_it_with_2() {
    for args in [["--nonsense"].as_slice(), &["nonsense"], &["--listen"]] {
        let exit = Program::run_to_end(args, &[], None);
        assert_eq!(exit.status.code(), Some(2), "{args:?}: {}", exit.stderr);
        assert!(!exit.stderr.is_empty() && !exit.stderr.contains("panicked"), "{args:?}: {}", exit.stderr);
    }
}

#[test]
fn help_and_version_are_on_stdout() {
    let help = Program::run_to_end(&["--help"], &[], None);
    assert_eq!(help.status.code(), Some(0), "{}", help.stderr);
    for word in ["--config", "--listen", "CRUDDUR_CONFIG", "CRUDDUR_LISTEN", "init"] {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
    let version = Program::run_to_end(&["--version"], &[], None);
    assert_eq!(version.stdout.trim(), concat!("cruddur ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_address_that_is_taken_or_none_is_said_in_a_sentence() {
    let program = Program::start();
    let taken = program.addr().to_string();
    for addr in [taken.as_str(), "nonsense"] {
        let exit = Program::run_to_end(&["--listen", addr], &[], None);
        assert!(exit.status.code().is_some_and(|code| code != 0), "{addr}: {:?}", exit.status);
        assert!(exit.stderr.contains(addr) && !exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[test]
fn the_console_shows_a_trace_as_a_tree_on_stdout() {
    let program = Program::start();
    program.get(HOME);
    program.wait_for_stdout("home-activities-mock-data");
    let stdout = program.stdout();
    let line = |name: &str| {
        stdout.lines().position(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in {stdout}"))
    };
    assert!(line("GET /api/activities/home") < line("home-activities-mock-data"), "{stdout}");
    assert!(stdout.contains("app.result_length"), "{stdout}");
    assert!(!program.stderr().contains("app.result_length"), "stdout is the console backend's alone, and all it has");
}

#[test]
fn the_console_writes_one_json_object_a_line_with_the_fields_of_pythons_exporter() {
    let program = Program::setup().toml("[console]\nenabled = true\nformat = \"json\"\n").start();
    let answer = program.get(HOME);
    program.wait_for_stdout("\"GET /api/activities/home\"");
    let exit = program.terminate();
    let spans: Vec<Value> =
        exit.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(spans.len(), 2, "{}", exit.stdout);
    for span in &spans {
        for field in [
            "name",
            "context",
            "kind",
            "parent_id",
            "start_time",
            "end_time",
            "status",
            "attributes",
            "events",
            "links",
            "resource",
        ] {
            assert!(span.get(field).is_some(), "no {field} in {span:#}");
        }
        assert_eq!(span["context"]["trace_id"], format!("0x{}", answer.trace_id()));
        assert_eq!(span["status"]["status_code"], "UNSET");
        assert_eq!(span["resource"]["attributes"]["service.name"], "backend-flask");
    }
    let of_kind = |kind: &str| spans.iter().find(|span| span["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let (server, inner) = (of_kind("SpanKind.SERVER"), of_kind("SpanKind.INTERNAL"));
    assert!(server["parent_id"].is_null());
    assert_eq!(inner["parent_id"], server["context"]["span_id"]);
    assert_eq!(inner["attributes"]["app.result_length"], 3);
}

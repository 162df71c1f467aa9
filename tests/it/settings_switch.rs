//! Save telemetry.toml, and the running server applies it: no request fails, no queued item is
//! lost, and an invalid file changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, CloudWatch, Collector, Program, Reply, SOON, XRayDaemon, log_lines, wait_until};

const HOME: &str = "/api/activities/home";
const OFF: &str = "[console]\nenabled = false\n";

/// Honeycomb on, with batches that are sent soon.
fn honeycomb(url: &str) -> String {
    format!("{OFF}[honeycomb]\nenabled = true\nschedule_delay = 50\nendpoint = \"{url}\"\n")
}

fn is(state: &str) -> impl Fn(&serde_json::Value) -> bool + '_ {
    move |backend| backend["state"] == state
}

#[test]
fn a_backend_is_switched_on_and_off_by_saving_the_file() {
    let collector = Collector::ok();
    let program = Program::setup().toml(OFF).start();
    program.get(HOME);
    assert_eq!(program.backend("honeycomb")["state"], "off");
    program.switch(&honeycomb(&collector.url()));
    assert_eq!(program.backend("honeycomb")["state"], "on");
    let trace_id = program.get(HOME).trace_id().to_owned();
    collector.wait_for(|received| received.iter().any(|request| request.spans()[0]["traceId"] == *trace_id), SOON);
    program.switch(OFF);
    let honeycomb = program.backend("honeycomb");
    assert_eq!(honeycomb["state"], "off");
    program.get(HOME);
    let honeycomb = program.wait_for_backend("honeycomb", |backend| backend["not_sent"] == 4);
    // The counts continue from their previous values.
    assert_eq!(honeycomb["delivered"], 2);
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [2, 0, 0, 0, 0]);
    let lines = log_lines(&exit.stderr, "settings").join("\n");
    assert!(lines.contains(&format!("honeycomb on: {}/v1/traces", collector.url())), "{lines}");
    assert!(lines.contains("honeycomb off: enabled is not set; put enabled = true under [honeycomb]"), "{lines}");
}

#[test]
fn what_waits_leaves_before_a_backend_goes_off() {
    let collector = Collector::ok();
    let slow =
        format!("{OFF}[honeycomb]\nenabled = true\nschedule_delay = 3600000\nendpoint = \"{}\"\n", collector.url());
    let program = Program::setup().toml(&slow).start();
    for _ in 0..10 {
        program.get(HOME);
    }
    assert_eq!(program.backend("honeycomb")["queued"], 20);
    program.switch(OFF);
    collector.wait_for(|received| received.iter().flat_map(|request| request.spans()).count() == 20, SOON);
    program.wait_for_stderr("honeycomb: off; all queued spans were sent");
    assert_eq!(program.backend("honeycomb")["delivered"], 20);
}

#[test]
fn what_could_not_leave_before_a_backend_went_off_is_counted_and_said() {
    let collector = Collector::start([Reply::text(503, "text/plain", "")]);
    let program = Program::setup().toml(&honeycomb(&collector.url())).start();
    program.get(HOME);
    collector.wait_for(|received| !received.is_empty(), SOON);
    program.switch(OFF);
    program.wait_for_stderr("honeycomb: off; 2 queued spans could not be sent, and are lost: ");
    assert_eq!(program.backend("honeycomb")["dropped"], 2);
}

#[test]
fn spans_that_wait_for_a_dead_address_go_to_the_mended_one() {
    let collector = Collector::ok();
    let program = Program::setup().toml(&honeycomb("http://127.0.0.1:9")).start();
    for _ in 0..5 {
        program.get(HOME);
    }
    program.wait_for_stderr("connection refused by http://");
    program.switch(&honeycomb(&collector.url()));
    program.wait_for_backend("honeycomb", |backend| backend["delivered"] == 10);
    assert_eq!(collector.accepted_spans().len(), 10);
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [10, 0, 0, 0, 0]);
    let lines = log_lines(&exit.stderr, "settings").join("\n");
    assert!(lines.contains("honeycomb has new settings ([honeycomb] endpoint)"), "{lines}");
}

#[test]
fn a_backend_whose_settings_are_the_same_is_left_alone() {
    let collector = Collector::ok();
    let slow = format!("[honeycomb]\nenabled = true\nschedule_delay = 3600000\nendpoint = \"{}\"\n", collector.url());
    let program = Program::setup().toml(&format!("{OFF}{slow}")).start();
    program.get(HOME);
    // The lines of its settings have moved, which the reason shows.
    program.switch(&format!("# a comment\n\n[console]\nenabled = true\nformat = \"json\"\n{slow}"));
    let honeycomb = program.backend("honeycomb");
    assert_eq!((&honeycomb["queued"], &honeycomb["delivered"]), (&2.into(), &0.into()));
    assert!(honeycomb["reason"].as_str().is_some_and(|reason| reason.contains("telemetry.toml:7")), "{honeycomb:#}");
    program.get(HOME);
    program.wait_for_stdout("\"GET /api/activities/home\"");
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [4, 0, 0, 0, 0]);
    assert!(!log_lines(&exit.stderr, "settings").join("\n").contains("honeycomb"), "{}", exit.stderr);
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_and_what() {
    let collector = Collector::ok();
    let good = honeycomb(&collector.url());
    let program = Program::setup().toml(&good).start();
    program.save(&good.replace("enabled = true", "enabeld = true"));
    program.wait_for_stderr(
        "telemetry.toml:4:1: unknown key \"enabeld\" in [honeycomb]; did you mean \"enabled\"?; the previous settings stay in force",
    );
    let errors = || {
        let findings = program.get("/telemetry/status").json()["findings"].take();
        let texts = findings.as_array().into_iter().flatten().filter(|finding| finding["severity"] == "error");
        texts.map(|finding| finding["text"].to_string()).collect::<Vec<_>>()
    };
    assert!(wait_until(SOON, || errors().iter().any(|text| text.contains("enabeld"))), "{:?}", errors());
    assert_eq!(program.backend("honeycomb")["state"], "on");
    program.get(HOME);
    program.wait_for_backend("honeycomb", |backend| backend["delivered"] == 2);
    // After the correction the finding is gone, and no setting has changed.
    program.switch(&good);
    assert!(wait_until(SOON, || errors().is_empty()), "{:?}", errors());
    program.wait_for_stderr("telemetry.toml: no value changed");
}

#[test]
fn a_file_that_is_emptied_or_gone_for_a_while_switches_nothing_off() {
    let collector = Collector::ok();
    let program = Program::setup().toml(&honeycomb(&collector.url())).start();
    let path = program.dir().join("telemetry.toml");
    fs::write(&path, "").unwrap();
    program.wait_for_stderr("telemetry.toml; the previous settings stay in force; next: save it again ");
    assert!(program.stderr().contains(" settings: empty file: "), "{}", program.stderr());
    fs::remove_file(&path).unwrap();
    program.wait_for_stderr("telemetry.toml; the previous settings stay in force; next: restore it ");
    assert!(program.stderr().contains(" settings: no such file: "), "{}", program.stderr());
    assert_eq!(program.backend("honeycomb")["state"], "on");
    program.switch(OFF);
    assert_eq!(program.backend("honeycomb")["state"], "off");
    fs::write(&path, b"service_name = \"caf\xe9\"\n").unwrap();
    program.wait_for_stderr("telemetry.toml:1:20: invalid UTF-8");
}

#[test]
fn a_file_that_turns_into_a_pipe_does_not_stop_the_watch() {
    let program = Program::setup().toml(OFF).start();
    let path = program.dir().join("telemetry.toml");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    program.wait_for_stderr("not a regular file, but a pipe: ");
    program.switch(&format!("service_name = \"after\"\n{OFF}"));
    assert_eq!(program.get("/telemetry/status").json()["service_name"], "after");
}

#[test]
fn sighup_says_that_a_file_is_gone_and_no_bug_of_yesterday() {
    let program = Program::setup().toml(OFF).start();
    program.save("[pgae]\n");
    program.wait_for_stderr("unknown key \"pgae\"");
    fs::remove_file(program.dir().join("telemetry.toml")).unwrap();
    program.signal("HUP");
    program.wait_for_stderr("telemetry.toml; the previous settings stay in force; next: restore it");
    let says = |part: &str| program.get("/telemetry/status").json()["findings"].to_string().contains(part);
    assert!(wait_until(SOON, || says("no such file: ") && !says("pgae")));
}

#[test]
fn what_came_while_a_backend_was_off_is_counted_at_the_end() {
    let collector = Collector::ok();
    let program = Program::setup().toml(&honeycomb(&collector.url())).start();
    program.get(HOME);
    program.switch(OFF);
    program.get(HOME);
    program.get(HOME);
    let exit = program.terminate();
    let line =
        "honeycomb: 2 delivered, 0 refused, 0 dropped, 0 sampled out, of 2 spans; 4 more while the backend was not on";
    assert!(exit.stderr.contains(line), "{}", exit.stderr);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change_as_kubernetes_makes_it() {
    let program = Program::setup().toml(OFF).start();
    let dir = program.dir();
    // telemetry.toml -> ..data/telemetry.toml and ..data -> ..1. Then ..data -> ..2, in one step.
    for (version, name) in [("..1", "first"), ("..2", "second")] {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("telemetry.toml"), format!("service_name = \"{name}\"\n{OFF}")).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/telemetry.toml", dir.join("link")).unwrap();
    fs::rename(dir.join("link"), dir.join("telemetry.toml")).unwrap();
    let name = || program.get("/telemetry/status").json()["service_name"].take();
    assert!(wait_until(SOON, || name() == "first"), "{}", name());
    symlink("..2", dir.join("..new")).unwrap();
    fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    assert!(wait_until(SOON, || name() == "second"), "{}", name());
}

#[test]
fn a_file_that_was_not_there_at_start_counts_when_it_comes() {
    let program = Program::start();
    assert_eq!(program.backend("console")["state"], "on");
    fs::write(program.dir().join("telemetry.toml"), OFF).unwrap();
    program.wait_for_backend("console", is("off"));
}

#[test]
fn sighup_reads_at_once_what_the_file_leads_to_as_well() {
    let daemon = XRayDaemon::start();
    let toml =
        format!("{OFF}[xray]\nenabled = true\ndaemon_address = \"{}\"\nsampling_rule = \"rule.json\"\n", daemon.addr());
    let program = Program::setup().toml(&toml).start();
    let rule = include_str!("../../aws/json/xray.json").replace("\"RuleName\": \"Cruddur\"", "\"RuleName\": \"Mine\"");
    assert!(rule.contains("Mine"));
    fs::write(program.dir().join("rule.json"), rule).unwrap();
    program.signal("HUP");
    program.wait_for_backend("xray", |xray| xray["sampling"].as_str().is_some_and(|text| text.contains("Mine")));
    program.signal("HUP");
    program.wait_for_stderr("telemetry.toml: no value changed");
    assert_eq!(program.get("/health").status, 200);
}

#[test]
fn log_lines_are_switched_too_and_so_is_their_level() {
    let service = CloudWatch::start();
    let on = |level: &str| format!("{OFF}[cloudwatch]\nenabled = true\nlevel = \"{level}\"\nschedule_delay = 50\n");
    let program = Program::setup()
        .toml(OFF)
        .env("AWS_REGION", CloudWatch::REGION)
        .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
        .env("AWS_ENDPOINT_URL", service.url())
        .env("RUST_LOG", "info")
        .start();
    let seen = |part: &str| service.events().iter().any(|event| event.message.contains(part));
    program.get("/api/activities/home?when=before");
    program.switch(&on("info"));
    program.get("/api/activities/home?when=on");
    assert!(wait_until(SOON, || seen("when=on")));
    program.switch(&on("error"));
    program.get("/api/activities/home?when=errors");
    program.get("/api/fail?when=failed");
    assert!(wait_until(SOON, || seen("when=failed")));
    program.switch(OFF);
    program.get("/api/fail?when=off");
    program.wait_for_stderr("cloudwatch: off; all queued lines were sent");
    assert!(!seen("when=before") && !seen("when=errors") && !seen("when=off"));
    // The worker has ended, but its counts remain.
    assert!(program.backend("cloudwatch")["delivered"].as_u64().is_some_and(|lines| lines >= 3));
}

#[test]
fn a_service_gets_another_name_and_a_page_is_closed_while_running() {
    let collector = Collector::ok();
    let toml = honeycomb(&collector.url());
    let program = Program::setup().toml(&format!("service_name = \"one\"\n{toml}")).start();
    program.get(HOME);
    program.switch(&format!("service_name = \"two\"\ntraces_sampler = \"always_off\"\n{toml}"));
    let status = program.get("/telemetry/status").json();
    assert_eq!(
        (&status["service_name"], &status["backends"]["honeycomb"]["sampling"]),
        (&"two".into(), &"always_off".into())
    );
    program.get(HOME);
    program.wait_for_backend("honeycomb", |backend| backend["sampled_out"] == 2);
    program.switch(&format!("service_name = \"two\"\n{toml}[page]\nenabled = false\n"));
    assert_eq!(program.get("/telemetry/status").status, 404);
    program.get(HOME);
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [4, 0, 0, 2, 0]);
    let instances = collector.spans().iter().map(|span| span["resource"]["attributes"].to_string()).collect::<Vec<_>>();
    assert!(instances[0].contains("\"one\"") && instances[3].contains("\"two\""), "{instances:?}");
    let instance = |text: &String| text.split("service.instance.id").nth(1).map(|rest| rest[..60].to_owned());
    assert_eq!(instance(&instances[0]), instance(&instances[3]), "one process has one id");
}

#[test]
fn the_end_of_the_program_flushes_what_was_just_switched_off() {
    let collector = Collector::ok();
    let slow =
        format!("{OFF}[honeycomb]\nenabled = true\nschedule_delay = 3600000\nendpoint = \"{}\"\n", collector.url());
    let program = Program::setup().toml(&slow).start();
    for _ in 0..50 {
        program.get(HOME);
    }
    program.switch(OFF);
    let exit = program.terminate();
    assert_eq!(exit.status.code(), Some(0));
    assert_eq!(exit.counts("honeycomb"), [100, 0, 0, 0, 0], "{}", exit.stderr);
}

#[test]
fn a_backend_that_hangs_delays_neither_the_switch_nor_the_end() {
    let collector = Collector::start([Reply::Hang]);
    let program = Program::setup().toml(&honeycomb(&collector.url())).start();
    program.get(HOME);
    collector.wait_for(|received| !received.is_empty(), SOON);
    let began = Instant::now();
    program.switch(OFF);
    assert_eq!(program.get(HOME).status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let exit = program.terminate();
    assert!(exit.took < Duration::from_secs(7), "{:?}", exit.took);
    // One batch was never answered; its spans are counted.
    assert_eq!(exit.counts("honeycomb"), [0, 0, 2, 0, 0], "{}", exit.stderr);
}

/// `tests/load/measure.py switch` does the same for longer, and measures how soon each edit is
/// applied.
#[test]
fn no_request_fails_and_no_span_is_lost_while_the_file_is_edited_under_load() {
    let (always, sometimes) = (Collector::ok(), XRayDaemon::start());
    let on = format!(
        "[honeycomb]\nenabled = true\nschedule_delay = 100\nmax_queue_size = 100000\nendpoint = \"{}\"\n",
        always.url()
    );
    let edits = [
        format!("{OFF}{on}"),
        format!("{OFF}{on}[xray]\nenabled = true\ndaemon_address = \"{}\"\n", sometimes.addr()),
        format!("{OFF}{on}[xray]\nenabled = true\ndaemon_address = \"{}\"\ntracing_name = \"x\"\n", sometimes.addr()),
        format!("{OFF}{}", on.replace("= 100\n", "= 90\n")),
    ];
    let program = Program::setup().toml(&edits[0]).env("RUST_LOG", "info,access=off").start();
    let over = AtomicBool::new(false);
    let answered: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(program.addr());
                    let mut answered = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(client.get(HOME).status, 200);
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        for edit in edits.iter().cycle().skip(1).take(8) {
            program.switch(edit);
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no request fails")).sum()
    });
    let exit = program.terminate();
    assert_eq!(exit.counts("honeycomb"), [2 * answered as u64, 0, 0, 0, 0], "{}", exit.stderr);
    assert_eq!(always.accepted_spans().len(), 2 * answered);
}

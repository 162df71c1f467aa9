//! Payloads on disk, against destinations that are away: nothing is lost over outages, restarts and
//! kills, nothing damaged is sent, and whatever is wrong with the disk, requests and deliveries go on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::{
    Client, CloudWatch, Collector, Exit, Program, Reply, SOON, Setup, TempDir, Trick, XRayEndpoint, get, log_lines,
    wait_until,
};

const HOME: &str = "/api/activities/home";
const KEY: &str = "a-key-that-nobody-else-may-ever-see-0123456789";
/// Port 1 needs privileges to listen on, so connections to it are refused.
const DEAD: &str = "http://127.0.0.1:1";
const HONEYCOMB: &str = "[console]\nenabled = false\n[honeycomb]\nenabled = true\nschedule_delay = 50\n";

/// A directory that outlives the programs of a test.
struct SpoolDir(TempDir);

impl SpoolDir {
    fn new() -> Self {
        Self(TempDir::new())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// Paths of the stored payloads of a backend.
    fn files(&self, backend: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join(backend)).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        // Not `tmp-...`, which is being written.
        paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(char::is_numeric)));
        paths.sort();
        paths
    }

    /// Settings with this directory.
    fn toml(&self, tables: &str) -> String {
        format!("spool_dir = {:?}\n{tables}", self.path())
    }
}

fn setup(toml: &str, endpoint: &str) -> Setup {
    Program::setup().toml(toml).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("HONEYCOMB_API_KEY", KEY)
}

/// Requests the home page `times` times, and returns the ids of the traces. Each has two spans.
fn go_home(program: &Program, times: usize) -> Vec<String> {
    let mut client = Client::connect(program.addr());
    let mut get = || {
        let answer = client.get(HOME);
        assert_eq!(answer.status, 200);
        answer.trace_id().to_owned()
    };
    (0..times).map(|_| get()).collect()
}

/// Waits until so many items of the backend are stored by this process.
fn wait_for_stored(program: &Program, backend: &str, items: u64) -> Value {
    program.wait_for_backend(backend, |backend| backend["stored"].as_u64() >= Some(items))
}

/// Waits until nothing is stored any more.
fn wait_for_empty(program: &Program, dir: &SpoolDir, backend: &str) -> Value {
    program.wait_for_backend(backend, |view| view["spool"]["items"] == 0 && dir.files(backend).is_empty())
}

/// Checks that the two spans of each trace are there once, and no others.
#[track_caller]
fn assert_each_once(spans: &[Value], traces: &[String]) {
    let id = |span: &Value, key: &str| span[key].as_str().expect("an id").to_owned();
    let unique: BTreeSet<_> = spans.iter().map(|span| id(span, "spanId")).collect();
    assert_eq!(unique.len(), spans.len(), "a span came twice");
    let mut found: Vec<_> = spans.iter().map(|span| id(span, "traceId")).collect();
    let mut expected = [traces, traces].concat();
    found.sort();
    expected.sort();
    assert!(found == expected, "{} spans instead of {}", found.len(), expected.len());
}

/// Checks that apply to every test.
#[track_caller]
fn assert_ended_well(exit: &Exit) {
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stderr);
    assert!(exit.took < Duration::from_secs(6), "it took {:?} to end", exit.took);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    assert!(!exit.stderr.contains(KEY), "the key was shown");
}

fn unavailable() -> Reply {
    Reply::text(503, "text/plain", "away")
}

#[test]
fn an_outage_with_restarts_in_the_middle_loses_nothing_and_repeats_nothing() {
    let dir = SpoolDir::new();
    let (collector, xray, logs) = (
        Collector::start([unavailable()]),
        XRayEndpoint::start(CloudWatch::KEY_ID, CloudWatch::SECRET),
        CloudWatch::start(),
    );
    let away = Trick::Error(503, "ServiceUnavailableException", "away".to_owned());
    xray.play(usize::MAX, away.clone());
    logs.play(usize::MAX, away);
    let tables = format!(
        "{HONEYCOMB}compression = \"gzip\"\n[xray_otlp]\nenabled = true\nschedule_delay = 50\n[cloudwatch]\nenabled = \
         true\nschedule_delay = 50\n"
    );
    let start = || {
        setup(&dir.toml(&tables), &collector.url())
            .env("AWS_ENDPOINT_URL_XRAY", xray.url())
            .env("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", logs.url())
            .env("AWS_REGION", CloudWatch::REGION)
            .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .start()
    };
    let mut traces = Vec::new();
    for _ in 0..2 {
        let program = start();
        traces.extend(go_home(&program, 150));
        let exit = program.terminate();
        assert_ended_well(&exit);
        for backend in ["honeycomb", "xray_otlp", "cloudwatch"] {
            let [delivered, refused, dropped, ..] = exit.counts(backend);
            assert_eq!([delivered, refused, dropped], [0; 3], "{backend}");
        }
    }
    let program = start();
    traces.extend(go_home(&program, 150));
    collector.reply_with(Reply::ok());
    xray.behave();
    logs.behave();
    for (backend, items) in [("honeycomb", 900), ("xray_otlp", 900), ("cloudwatch", 450)] {
        let view = program.wait_for_backend(backend, |view| {
            view["delivered"].as_u64().unwrap_or(0) + view["spool"]["sent"].as_u64().unwrap_or(0) >= items
                && view["spool"]["items"] == 0
        });
        assert_eq!(view["spool"]["expired"], 0, "{view:#}");
    }
    assert_ended_well(&program.terminate());
    assert_each_once(&collector.accepted_spans(), &traces);
    assert_each_once(&xray.spans(), &traces);
    let mut lines: Vec<_> = logs
        .events()
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(&event.message).ok())
        .filter(|line| line["target"] == "access" && line["message"].as_str().is_some_and(|text| text.contains(HOME)))
        .map(|line| line["trace_id"].as_str().expect("an id").to_owned())
        .collect();
    lines.sort();
    traces.sort();
    assert_eq!(lines, traces);
    for backend in ["honeycomb", "xray_otlp", "cloudwatch"] {
        assert!(dir.files(backend).is_empty(), "{backend}");
    }
}

/// `SPOOL_KILLS` sets the number of kills.
#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_that_was_stored() {
    let kills = std::env::var("SPOOL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let dir = SpoolDir::new();
    let toml = dir.toml(HONEYCOMB);
    // Away and there in turn, so that a kill meets both writes and removals.
    let collector = Collector::start([unavailable()]);
    let mut stored_before = BTreeSet::new();
    for kill in 0..kills {
        let is_away = kill % 3 != 2;
        collector.reply_with(if is_away { unavailable() } else { Reply::ok() });
        let program = setup(&toml, &collector.url()).start();
        if kill > 0 {
            program.wait_for_stderr("was killed or crashed");
        }
        let load = thread::spawn({
            let mut client = Client::connect(program.addr());
            move || {
                let request = format!("GET {HOME} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                while client.try_send_raw(request.as_bytes()).is_ok() && client.try_read_answer().is_ok() {}
            }
        });
        // A random moment, between nothing and some tens of batches.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos();
        thread::sleep(Duration::from_millis(u64::from(nanos / 1000 % 400)));
        program.signal("KILL");
        drop(program.wait());
        load.join().expect("the client ends with its connection");
        for path in dir.files("honeycomb") {
            let content = fs::read(&path).expect("a stored payload");
            let body = content.splitn(3, |byte| *byte == b'\n').nth(2).expect("two lines and a body");
            stored_before.extend(span_ids(&serde_json::from_reader(GzDecoder::new(body)).expect("a whole body")));
        }
    }
    collector.reply_with(Reply::ok());
    let program = setup(&toml, &collector.url()).start();
    program.wait_for_stderr("was killed or crashed");
    let view = wait_for_empty(&program, &dir, "honeycomb");
    assert_eq!((&view["spool"]["lost"], &view["spool"]["expired"]), (&0.into(), &0.into()));
    assert_ended_well(&program.terminate());
    let arrived: BTreeSet<_> =
        collector.accepted_spans().iter().map(|span| span["spanId"].as_str().expect("an id").to_owned()).collect();
    let lost = stored_before.difference(&arrived).count();
    assert!(lost == 0 && !stored_before.is_empty(), "{lost} of {} spans are lost", stored_before.len());
    assert!(!dir.path().join("bad").exists(), "a damaged file");
    let left: Vec<_> = fs::read_dir(dir.path().join("honeycomb")).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn span_ids(body: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    for resource_spans in body["resourceSpans"].as_array().into_iter().flatten() {
        for scope_spans in resource_spans["scopeSpans"].as_array().into_iter().flatten() {
            let spans = scope_spans["spans"].as_array().into_iter().flatten();
            ids.extend(spans.map(|span| span["spanId"].as_str().expect("an id").to_owned()));
        }
    }
    ids
}

#[test]
fn a_destination_that_never_answers_blocks_neither_the_queue_nor_the_end() {
    let dir = SpoolDir::new();
    let collector = Collector::start([Reply::Hang]);
    let toml = dir.toml(&format!("{HONEYCOMB}max_queue_size = 400\nmax_export_batch_size = 100\n"));
    let program = setup(&toml, &collector.url()).start();
    let mut traces = Vec::new();
    for _ in 0..4 {
        // Half of the queue each time, which the slowest disk can store meanwhile.
        traces.extend(go_home(&program, 100));
        program.wait_for_backend("honeycomb", |view| view["queued"] == 0);
    }
    let view = program.backend("honeycomb");
    assert_eq!((view["dropped"].as_u64(), view["stored"].as_u64() >= Some(600)), (Some(0), true), "{view:#}");
    traces.extend(go_home(&program, 1));
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [0; 5]);
    assert!(exit.stderr.contains(", 802 stored, of 802 spans"), "{}", exit.stderr);

    collector.reply_with(Reply::ok());
    let program = setup(&toml, &collector.url()).start();
    wait_for_empty(&program, &dir, "honeycomb");
    assert_ended_well(&program.terminate());
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn what_waits_is_sent_to_a_corrected_address_with_a_corrected_key() {
    let dir = SpoolDir::new();
    let collector = Collector::start([Reply::text(401, "text/plain", "unknown key")]);
    let toml = |endpoint: &str, key: &str| {
        dir.toml(&format!("{HONEYCOMB}endpoint = \"{endpoint}\"\napi_key = \"{key}\"\ncompression = \"gzip\"\n"))
    };
    let program = Program::setup().toml(&toml(DEAD, "a-wrong-key-of-thirty-two-letters")).start();
    let mut traces = go_home(&program, 3);
    wait_for_stored(&program, "honeycomb", 6);
    program.switch(&toml(&collector.url(), "a-wrong-key-of-thirty-two-letters"));
    collector.wait_for(|received| !received.is_empty(), SOON);
    traces.extend(go_home(&program, 1));
    wait_for_stored(&program, "honeycomb", 8);
    collector.reply_with(Reply::ok());
    program.switch(&toml(&collector.url(), KEY).replace("gzip", "none"));
    wait_for_empty(&program, &dir, "honeycomb");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [0; 5]);
    let accepted = collector.requests().into_iter().filter(|request| request.answered == Some(200));
    for request in accepted {
        assert_eq!((request.header("x-honeycomb-team"), request.header("content-encoding")), (Some(KEY), None));
    }
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn lines_that_wait_go_to_the_log_group_in_force() {
    let dir = SpoolDir::new();
    let logs = CloudWatch::start();
    let toml = |group: &str| {
        dir.toml(&format!("[cloudwatch]\nenabled = true\nschedule_delay = 50\nlog_group = \"{group}\"\n"))
    };
    let start = |endpoint: &str, group: &str| {
        Program::setup()
            .toml(&toml(group))
            .env("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", endpoint)
            .env("AWS_REGION", CloudWatch::REGION)
            .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
            .start()
    };
    let program = start(DEAD, "with/a/wrong/name");
    go_home(&program, 2);
    assert_ended_well(&program.terminate());
    assert!(!dir.files("cloudwatch").is_empty());
    let program = start(&logs.url(), "cruddur");
    wait_for_empty(&program, &dir, "cloudwatch");
    assert_ended_well(&program.terminate());
    assert_eq!(logs.groups().iter().map(|(group, _)| group.as_str()).collect::<Vec<_>>(), ["cruddur"]);
}

#[test]
fn no_secret_is_stored_and_only_the_owner_can_read_what_is() {
    let dir = SpoolDir::new();
    let program = setup(&dir.toml(HONEYCOMB), DEAD).start();
    go_home(&program, 2);
    wait_for_stored(&program, "honeycomb", 4);
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    let folder = dir.path().join("honeycomb");
    assert_eq!((mode(&dir.path()), mode(&folder)), (0o700, 0o700));
    for entry in fs::read_dir(&folder).expect("the folder").flatten() {
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        let content = fs::read(entry.path()).expect("a file");
        assert!(!String::from_utf8_lossy(&content).contains(KEY), "{entry:?}");
    }
    for path in dir.files("honeycomb") {
        // The body as a shell prints it.
        let script = format!("tail -n +3 {path:?} | gunzip");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
        let body = String::from_utf8(output.stdout).expect("text");
        assert!(body.starts_with("{\"resourceSpans\":") && !body.contains(KEY), "{body}");
    }
    assert_ended_well(&program.terminate());
}

#[test]
fn two_processes_with_one_directory_send_every_payload_once() {
    let dir = SpoolDir::new();
    let collector = Collector::start([unavailable()]);
    let start = || setup(&dir.toml(HONEYCOMB), &collector.url()).start();
    let (one, other) = (start(), start());
    let mut traces = Vec::new();
    for number in 1..=10 {
        traces.extend(go_home(&one, 1));
        traces.extend(go_home(&other, 1));
        wait_for_stored(&one, "honeycomb", 2 * number);
        wait_for_stored(&other, "honeycomb", 2 * number);
    }
    collector.reply_with(Reply::ok());
    assert_ended_well(&one.terminate());
    let third = start();
    assert!(wait_until(SOON * 2, || dir.files("honeycomb").is_empty()), "{:?}", dir.files("honeycomb"));
    for program in [other, third] {
        let exit = program.terminate();
        assert_ended_well(&exit);
        assert!(!exit.stderr.contains("killed"), "{}", exit.stderr);
    }
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn files_that_cannot_be_sent_are_set_aside_and_named_once() {
    let dir = SpoolDir::new();
    let collector = Collector::start([unavailable()]);
    let start = || setup(&dir.toml(HONEYCOMB), &collector.url()).start();
    let program = start();
    let traces = go_home(&program, 1);
    wait_for_stored(&program, "honeycomb", 2);
    assert_ended_well(&program.terminate());
    let folder = dir.path().join("honeycomb");
    let good = fs::read(&dir.files("honeycomb")[0]).expect("a payload");
    let mut damaged = good.clone();
    *damaged.last_mut().expect("a byte") = b'!';
    let newer = [b"cruddur-spool 2", &good["cruddur-spool 2".len()..]].concat();
    for (name, content) in [
        ("0000000000001-aaaaaaaa-000001.batch", damaged.as_slice()),
        ("0000000000002-aaaaaaaa-000002.batch", newer.as_slice()),
        ("0000000000003-aaaaaaaa-000003.batch", b""),
        ("notes.txt", b"hello"),
    ] {
        fs::write(folder.join(name), content).expect("a file");
    }
    collector.reply_with(Reply::ok());
    let program = start();
    wait_for_empty(&program, &dir, "honeycomb");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_each_once(&collector.accepted_spans(), &traces);
    for (what, times) in [("is damaged", 1), ("another version of cruddur", 1), ("is not a file of cruddur", 1)] {
        let lines = log_lines(&exit.stderr, "honeycomb").into_iter().filter(|line| line.contains(what));
        assert_eq!(lines.count(), times, "{what} in {}", exit.stderr);
    }
    assert_eq!(fs::read_dir(dir.path().join("bad")).expect("a folder").count(), 4);
    assert_eq!(fs::read_to_string(dir.path().join("bad/honeycomb-notes.txt")).expect("the file"), "hello");
}

#[test]
fn a_directory_that_is_removed_is_created_again_and_the_loss_is_counted() {
    let dir = SpoolDir::new();
    let collector = Collector::start([unavailable()]);
    let program = setup(&dir.toml(HONEYCOMB), &collector.url()).start();
    go_home(&program, 1);
    wait_for_stored(&program, "honeycomb", 2);
    fs::remove_dir_all(dir.path()).expect("it is there");
    let traces = go_home(&program, 2);
    let view = wait_for_stored(&program, "honeycomb", 6);
    assert_eq!(view["spool"]["lost"], 2, "{view:#}");
    collector.reply_with(Reply::ok());
    wait_for_empty(&program, &dir, "honeycomb");
    let exit = program.terminate();
    assert_ended_well(&exit);
    let sentences = log_lines(&exit.stderr, "honeycomb").into_iter().filter(|line| line.contains("no such directory"));
    assert_eq!(sentences.count(), 1, "{}", exit.stderr);
    assert_each_once(&collector.accepted_spans(), &traces);
}

/// A disk that is full, or cannot be written to: payloads are retried in memory, as without a
/// directory.
#[test]
fn a_disk_that_cannot_be_written_to_stops_neither_requests_nor_deliveries() {
    for (options, sentence) in [("", "No space left on device"), (",ro", "Read-only file system")] {
        let dir = TempDir::new();
        let collector = Collector::start([unavailable()]);
        let toml = format!("spool_dir = {:?}\n{HONEYCOMB}", dir.path());
        let setup = match setup(&toml, &collector.url()).mount(dir.path(), options) {
            Ok(setup) => setup,
            Err(why) => return eprintln!("not tested: {why}"),
        };
        let program = setup.start();
        go_home(&program, 200);
        program.wait_for_stderr(sentence);
        collector.reply_with(Reply::ok());
        let view = program.wait_for_backend("honeycomb", |view| {
            view["delivered"].as_u64().unwrap_or(0) + view["spool"]["sent"].as_u64().unwrap_or(0) == 400
        });
        assert_eq!((&view["dropped"], &view["spool"]["items"]), (&0.into(), &0.into()), "{view:#}");
        let exit = program.terminate();
        assert_ended_well(&exit);
        let lines = log_lines(&exit.stderr, "honeycomb");
        assert_eq!(lines.iter().filter(|line| line.contains(sentence)).count(), 1, "{}", exit.stderr);
    }
}

#[test]
fn check_says_what_is_stored_and_whether_more_can_be() {
    let dir = SpoolDir::new();
    let collector = Collector::ok();
    let program = setup(&dir.toml(HONEYCOMB), DEAD).start();
    go_home(&program, 3);
    let exit = program.terminate();
    assert_ended_well(&exit);
    let stored = format!("wait in {}, the oldest since 20", dir.path().join("honeycomb").display());
    assert!(exit.stderr.contains("honeycomb: 6 spans in ") && exit.stderr.contains(&stored), "{}", exit.stderr);

    let check = |toml: &str| setup(toml, &collector.url()).arg("check").run();
    let checked = check(&dir.toml(HONEYCOMB));
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("6 spans in "), "{}", checked.stdout);
    assert_eq!(collector.spans().len(), 2, "a check sends its own trace only");

    let file = dir.0.write("file", "");
    let checked = check(&format!("spool_dir = {file:?}\n{HONEYCOMB}"));
    assert!(checked.stdout.contains("cannot write to"), "{}", checked.stdout);
}

#[test]
fn a_backend_that_is_switched_off_stores_what_it_cannot_send() {
    let dir = SpoolDir::new();
    let collector = Collector::ok();
    let program = setup(&dir.toml(HONEYCOMB), DEAD).start();
    let traces = go_home(&program, 2);
    program.switch(&dir.toml(&HONEYCOMB.replace("[honeycomb]\nenabled = true", "[honeycomb]\nenabled = false")));
    assert!(wait_until(SOON, || dir.files("honeycomb").len() == 1), "{}", program.stderr());
    assert_ended_well(&program.terminate());
    let program = setup(&dir.toml(HONEYCOMB), &collector.url()).start();
    wait_for_empty(&program, &dir, "honeycomb");
    assert_ended_well(&program.terminate());
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn a_renewal_of_the_process_stores_what_it_cannot_send() {
    let dir = SpoolDir::new();
    let collector = Collector::start([unavailable()]);
    let program = setup(&dir.toml(HONEYCOMB), &collector.url()).descriptors(256).start();
    let (mut traces, mut blocked) = (Vec::new(), Vec::new());
    let is_renewed = wait_until(SOON * 2, || {
        if blocked.len() < 60 {
            let mut client = Client::connect(program.addr());
            // tiny_http never frees such a connection.
            client.send_raw(b"GET / HTTP/2.0\r\n\r\n");
            blocked.push(client);
        }
        let answer = get(program.addr(), HOME);
        assert_eq!(answer.status, 200);
        traces.push(answer.trace_id().to_owned());
        program.lives() == 2
    });
    assert!(is_renewed, "{}", program.stderr());
    traces.extend(go_home(&program, 5));
    collector.reply_with(Reply::ok());
    wait_for_empty(&program, &dir, "honeycomb");
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(!exit.stderr.contains("killed"), "{}", exit.stderr);
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn a_batch_that_hangs_in_a_replaced_worker_is_stored_at_the_end() {
    let dir = SpoolDir::new();
    let (hanging, collector) = (Collector::start([Reply::Hang]), Collector::ok());
    let toml = |endpoint: &str| dir.toml(&format!("{HONEYCOMB}endpoint = \"{endpoint}\"\n"));
    let program = Program::setup().toml(&toml(&hanging.url())).start();
    let traces = go_home(&program, 1);
    hanging.wait_for(|received| !received.is_empty(), SOON);
    program.switch(&toml(&collector.url()));
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert_eq!(exit.counts("honeycomb"), [0; 5]);
    let program = Program::setup().toml(&toml(&collector.url())).start();
    wait_for_empty(&program, &dir, "honeycomb");
    assert_ended_well(&program.terminate());
    assert_each_once(&collector.accepted_spans(), &traces);
}

#[test]
fn other_limits_take_over_what_is_stored_and_a_backend_that_is_off_shows_it() {
    let dir = SpoolDir::new();
    let collector = Collector::ok();
    let off = HONEYCOMB.replace("[honeycomb]\nenabled = true", "[honeycomb]\nenabled = false");
    let program = setup(&dir.toml(HONEYCOMB), DEAD).start();
    let traces = go_home(&program, 1);
    wait_for_stored(&program, "honeycomb", 2);
    program.switch(&format!("spool_max_mib = 1\n{}", dir.toml(HONEYCOMB)));
    program.wait_for_backend("honeycomb", |view| view["spool"]["items"] == 2 && view["spool"]["max_bytes"] == 1 << 20);
    let exit = program.terminate();
    assert_ended_well(&exit);
    assert!(!exit.stderr.contains("killed"), "{}", exit.stderr);

    let program = setup(&dir.toml(&off), &collector.url()).start();
    program.wait_for_backend("honeycomb", |view| view["spool"]["items"] == 2);
    let checked = setup(&dir.toml(&off), &collector.url()).arg("check").run();
    assert!(checked.stdout.contains("2 spans in 1 batch wait"), "{}", checked.stdout);
    program.switch(&dir.toml(HONEYCOMB));
    wait_for_empty(&program, &dir, "honeycomb");
    assert_ended_well(&program.terminate());
    assert_each_once(&collector.accepted_spans(), &traces);
}

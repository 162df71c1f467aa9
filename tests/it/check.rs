//! `cruddur check` sends one trace and one log line to every backend that is on, with the server's
//! own encoders. It reports the results. The exit status is 0 only if everything was accepted.

use serde_json::{Value, json};

use crate::support::{CloudWatch, Collector, Exit, Program, Reply, SOON, TempDir, XRayDaemon};

const KEY: &str = "abcdefghijklmnopqrwxyz";

/// All three backends on, each sending to its stand-in.
struct Everybody {
    honeycomb: Collector,
    xray: XRayDaemon,
    cloudwatch: CloudWatch,
}

impl Everybody {
    fn with(honeycomb: Collector) -> Self {
        let xray = XRayDaemon::start();
        xray.set_rules(&[json!({
            "RuleName": "Cruddur", "RuleARN": "arn:aws:xray:us-east-1:123456789012:sampling-rule/Cruddur", "ResourceARN": "*",
            "Priority": 9000, "FixedRate": 0.0, "ReservoirSize": 0, "ServiceName": "backend-flask", "ServiceType": "*",
            "Host": "*", "HTTPMethod": "*", "URLPath": "*", "Version": 1, "Attributes": {},
        })]);
        Self { honeycomb, xray, cloudwatch: CloudWatch::start() }
    }

    fn check(&self, args: &[&str], env: &[(&str, &str)]) -> Exit {
        let toml = format!(
            "[honeycomb]\nenabled = true\nendpoint = \"{}\"\n[xray]\nenabled = true\ndaemon_address = \"{}\"\n[cloudwatch]\nenabled = true\n",
            self.honeycomb.url(),
            self.xray.addr()
        );
        let url = self.cloudwatch.url();
        let mut all = vec![
            ("HONEYCOMB_API_KEY", KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET),
            ("AWS_ENDPOINT_URL", url.as_str()),
        ];
        all.extend(env);
        let exit = Program::run_to_end(&[&["check"], args].concat(), &all, Some(&toml));
        let text = format!("{}{}", exit.stdout, exit.stderr);
        for secret in [KEY, CloudWatch::SECRET, "Authorization"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        exit
    }
}

fn report(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", exit.stdout, exit.stderr))
}

fn backend<'r>(report: &'r Value, name: &str) -> &'r Value {
    let backends = report["backends"].as_array().expect("a list");
    backends.iter().find(|backend| backend["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn all_well_is_exit_0_and_everybody_has_the_same_trace() {
    let all = Everybody::with(Collector::ok());
    let exit = all.check(&["--json"], &[]);
    assert_eq!(exit.status.code(), Some(0), "{}{}", exit.stdout, exit.stderr);
    let report = report(&exit);
    assert_eq!(report["ok"], true);
    for name in ["honeycomb", "xray", "cloudwatch"] {
        assert_eq!(backend(&report, name)["verdict"], "accepted", "{report:#}");
    }
    let trace_id = backend(&report, "honeycomb")["sent"]["trace_id"].as_str().expect("an id");
    let spans = all.honeycomb.accepted_spans();
    assert!(spans.iter().all(|span| span["traceId"] == trace_id), "{spans:?}");
    assert_eq!(spans.len(), 2);
    let segment = all.xray.wait_for_trace(trace_id, SOON);
    assert_eq!(
        (&segment["name"], &segment["subsegments"][0]["name"]),
        (&"backend-flask".into(), &"sent by cruddur check".into())
    );
    let lines = all.cloudwatch.events();
    assert_eq!((lines.len(), &lines[0].json()["trace_id"]), (1, &trace_id.into()));
    // Every value has its origin.
    let values = backend(&report, "honeycomb")["values"].as_array().expect("a list");
    let origin = |key: &str| &values.iter().find(|value| value["key"] == key).expect("a value")["origin"];
    assert!(
        origin("[honeycomb] endpoint").as_str().is_some_and(|origin| origin.ends_with("telemetry.toml:3")),
        "{values:?}"
    );
    assert_eq!(
        (origin("[honeycomb] api_key"), origin("[honeycomb] timeout")),
        (&"HONEYCOMB_API_KEY".into(), &"default".into())
    );
}

#[test]
fn the_report_for_people_says_what_was_set_sent_and_answered() {
    let all = Everybody::with(Collector::ok());
    let exit = all.check(&[], &[]);
    for part in [
        "service backend-flask (default)",
        "honeycomb  accepted ",
        "[honeycomb] api_key = ending in wxyz (22 characters) (HONEYCOMB_API_KEY)",
        "    sent      2 spans in ",
        "    answered  HTTP/1.1 200 OK {}",
        "    answered  nothing from udp 127.0.0.1",
        "    answered  Logs_20140328.PutLogEvents: HTTP/1.1 200",
        "region us-east-1 from AWS_REGION",
        "Every backend that is on accepted the test data.",
    ] {
        assert!(exit.stdout.contains(part), "no {part} in:\n{}", exit.stdout);
    }
}

#[test]
fn one_that_refuses_is_exit_1_and_the_others_are_still_told() {
    let all =
        Everybody::with(Collector::start([Reply::json(401, &json!({ "message": format!("unknown key {KEY}") }))]));
    let exit = all.check(&["--json"], &[]);
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    let report = report(&exit);
    assert_eq!((&report["ok"], &backend(&report, "xray")["verdict"]), (&false.into(), &"accepted".into()));
    let honeycomb = backend(&report, "honeycomb");
    assert_eq!(honeycomb["verdict"], "refused");
    let text = honeycomb["findings"][0]["text"].as_str().expect("a sentence");
    assert!(text.starts_with("HTTP 401 Unauthorized from http://"), "{text}");
    assert!(text.contains("/v1/traces (unknown key ***); next: check the API key ending in wxyz"), "{text}");
}

#[test]
fn a_log_service_that_refuses_says_why() {
    let all = Everybody::with(Collector::ok());
    let exit = all.check(&["--json"], &[("AWS_SECRET_ACCESS_KEY", "wrong")]);
    assert_eq!(exit.status.code(), Some(1));
    let report = report(&exit);
    let cloudwatch = backend(&report, "cloudwatch");
    assert_eq!(cloudwatch["verdict"], "failed");
    let text = cloudwatch["findings"].to_string();
    assert!(text.contains("next: check AWS_SECRET_ACCESS_KEY"), "{text}");
}

#[test]
fn a_daemon_that_is_not_there_is_noticed_although_udp_has_no_answers() {
    let address = XRayDaemon::free_addr();
    let toml = format!("[xray]\nenabled = true\ndaemon_address = \"{address}\"\n");
    let exit = Program::run_to_end(&["check", "--json"], &[], Some(&toml));
    assert_eq!(exit.status.code(), Some(1));
    let report = report(&exit);
    let xray = backend(&report, "xray");
    assert_eq!(xray["verdict"], "failed");
    let sentence = format!("connection refused by udp {address}; next: start the X-Ray daemon");
    assert!(xray["findings"].to_string().contains(&sentence), "{xray:#}");
}

#[test]
fn segments_without_rules_are_not_well() {
    let daemon = XRayDaemon::without_tcp();
    let toml = format!("[xray]\nenabled = true\ndaemon_address = \"{}\"\n", daemon.addr());
    let exit = Program::run_to_end(&["check", "--json"], &[], Some(&toml));
    assert_eq!(exit.status.code(), Some(1));
    assert_eq!(backend(&report(&exit), "xray")["verdict"], "refused");
    daemon.wait_for_datagrams(1, SOON);
}

#[test]
fn what_waits_is_not_well_and_what_is_off_is() {
    let exit = Program::run_to_end(&["check"], &[], Some("[honeycomb]\nenabled = true\n"));
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stdout.contains("error: no API key: HONEYCOMB_API_KEY is not set in this process"), "{}", exit.stdout);
    let exit = Program::run_to_end(&["check"], &[], Some(""));
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stdout);
    assert!(exit.stdout.contains("Nothing was sent: "), "{}", exit.stdout);
    // The console's own output would be in the way of the report.
    assert!(!exit.stdout.contains("sent by cruddur check"), "{}", exit.stdout);
}

#[test]
fn a_receiver_that_never_answers_ends_the_check_in_time() {
    let collector = Collector::start([Reply::Hang]);
    let toml = format!("[honeycomb]\nenabled = true\nendpoint = \"{}\"\ntimeout = 1000\n", collector.url());
    let exit = Program::run_to_end(&["check"], &[], Some(&toml));
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stdout.contains("error: timed out after 1 s: http://"), "{}", exit.stdout);
}

#[test]
fn a_bad_file_is_exit_2_and_json_for_those_who_want_it() {
    let exit = Program::run_to_end(&["check", "--json"], &[], Some("[honeycom]\n"));
    assert_eq!(exit.status.code(), Some(2));
    let sentence = "telemetry.toml:1:2: unknown key \"honeycom\"; did you mean \"honeycomb\"?";
    assert!(exit.stderr.contains(sentence), "{}", exit.stderr);
    let report = report(&exit);
    assert_eq!(report["ok"], false);
    assert!(report["error"].as_str().is_some_and(|error| error.ends_with(sentence)), "{report:#}");
}

#[test]
fn a_web_server_that_says_200_to_everything_has_accepted_nothing() {
    let page = "\n<!DOCTYPE html><html><body>Please log in</body></html>";
    let collector = Collector::start([Reply::text(200, "text/html", page)]);
    let toml = format!("[honeycomb]\nenabled = true\nendpoint = \"{}\"\n", collector.url());
    let exit = Program::run_to_end(&["check"], &[], Some(&toml));
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stdout);
    assert!(
        exit.stdout.contains("unexpected web page from http://")
            && exit.stdout.contains(", which is not a receiver of telemetry; next: "),
        "{}",
        exit.stdout
    );
}

#[test]
fn a_key_in_the_file_is_warned_about_whether_it_is_used_or_not() {
    let exit = Program::run_to_end(&["check"], &[], Some("[honeycomb]\napi_key = \"abcdefghijklmnopqrwxyz\"\n"));
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stdout);
    assert!(
        exit.stdout.contains("    warning: ") && exit.stdout.contains("can be read by other users"),
        "{}",
        exit.stdout
    );
}

#[test]
fn a_key_in_the_place_of_an_address_is_not_repeated() {
    for env in [
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "x-honeycomb-team=hcaik_01secretsecretwxyz")],
        [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "hcaik_01secretsecretwxyz")],
    ] {
        for args in [&["check"][..], &["check", "--json"]] {
            let exit = Program::run_to_end(args, &env, Some("[honeycomb]\nenabled = true\n"));
            assert_eq!(exit.status.code(), Some(1));
            let text = exit.stdout + &exit.stderr;
            assert!(text.contains("_ENDPOINT=(text ending in wxyz (") && !text.contains("secret"), "{text}");
        }
    }
    let toml = "[honeycomb]\nenabled = true\nendpoint = \"hcaik_01secretsecretwxyz\"\n";
    let exit = Program::run_to_end(&["check"], &[], Some(toml));
    let sentence = "telemetry.toml:3: [honeycomb] endpoint = \"(text ending in wxyz (24 characters))\": invalid URL without http:// or https://";
    assert!(exit.stdout.contains(sentence) && !exit.stdout.contains("secret"), "{}", exit.stdout);
}

#[test]
fn a_pipe_is_no_settings_file_and_nobody_waits_for_it() {
    let dir = TempDir::new();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let pipe = pipe.to_str().expect("a path of text");
    for command in ["serve", "check"] {
        let exit = Program::run_to_end(&[command, "--config", pipe], &[], None);
        assert_eq!(exit.status.code(), Some(2));
        assert!(exit.stderr.contains(&format!("not a regular file, but a pipe: {pipe}; next: ")), "{}", exit.stderr);
    }
}

#[test]
fn init_never_overwrites_and_what_it_writes_is_a_good_file() {
    let dir = TempDir::new();
    let path = dir.path().join("mine.toml");
    let path = path.to_str().expect("a path of text");
    assert_eq!(Program::run_to_end(&["init", "--config", path], &[], None).status.code(), Some(0));
    let written = std::fs::read_to_string(path).expect("it was written");
    assert_eq!(written, std::fs::read_to_string("telemetry.toml").expect("the shipped one"));
    std::fs::write(path, "mine").expect("it is ours");
    let exit = Program::run_to_end(&["init", "--config", path], &[], None);
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains(&format!("file exists: {path} (not changed); next: ")), "{}", exit.stderr);
    assert_eq!(std::fs::read_to_string(path).expect("it is there"), "mine");
    assert_eq!(Program::run_to_end(&["check"], &[], Some(&written)).status.code(), Some(0));
}

#[test]
fn who_is_busy_is_to_be_checked_again_by_whoever_checks() {
    let all = Everybody::with(Collector::start([Reply::json(503, &json!({}))]));
    let exit = all.check(&[], &[]);
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stdout);
    assert!(exit.stdout.contains("error: HTTP 503 Service Unavailable from http://"), "{}", exit.stdout);
    assert!(exit.stdout.contains("/v1/traces; next: check again in a minute"), "{}", exit.stdout);
    assert!(!exit.stdout.contains("next: nothing"), "{}", exit.stdout);
}

#[test]
fn nothing_is_said_to_be_sent_to_a_name_without_an_address() {
    let toml = "[xray]\nenabled = true\ndaemon_address = \"no-such-host.invalid:2000\"\n";
    let exit = Program::run_to_end(&["check"], &[], Some(toml));
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stdout);
    assert!(exit.stdout.contains("DNS lookup failed for no-such-host.invalid; next: "), "{}", exit.stdout);
    assert!(!exit.stdout.contains("sent ") && !exit.stdout.contains("has no responses"), "{}", exit.stdout);
}

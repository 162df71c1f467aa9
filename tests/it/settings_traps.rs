//! The traps on which the course's students lost their evenings, with a test per trap. A mistake
//! that was silent there is impossible here, or causes one sentence that names the variable, its
//! value and the next step. The same sentence is shown at start-up, in `cruddur check` and in
//! `GET /telemetry/status`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::told::{NOWHERE, checked, start, status, status_says, told_at_start, told_when_sent};
use crate::support::{Client, CloudWatch, Collector, Program, Reply, SOON, XRayDaemon, http_date, wait_until};

const HOME: &str = "/api/activities/home";
const HONEYCOMB: &str = "[honeycomb]\nenabled = true\nschedule_delay = 50\n";
const XRAY: &str = "[xray]\nenabled = true\nschedule_delay = 50\n";
const CLOUDWATCH: &str = "[cloudwatch]\nenabled = true\nschedule_delay = 50\n";
fn to(url: &str) -> [(&str, &str); 1] {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", url)]
}

#[test]
fn t7_a_host_pattern_that_was_not_filled_in_is_refused() {
    for pattern in ["*4567-${GITPOD_WORKSPACE_ID}.gitpod.io*", ".{GITPOD_WORKSPACE_CLUSTER_HOST}"] {
        let sentence = format!(
            "AWS_XRAY_URL={pattern}: a variable in the pattern was not replaced; all traces are filed under \"backend-flask\"; next: \
             write the host in full, with * at both ends"
        );
        told_at_start(XRAY, &[("AWS_XRAY_URL", pattern)], &sentence);
    }
}

#[test]
fn t7_a_host_pattern_shows_what_it_names_and_what_it_misses() {
    let sentence = "a request to \"4567-abc.gitpod.io\" is filed under \"4567-abc.gitpod.io\", one to \"4567-abc.gitpod.io:443\" under \
                    \"backend-flask\"";
    told_at_start(XRAY, &[("AWS_XRAY_URL", "*4567-abc.gitpod.io")], sentence);
}

#[test]
fn t8_a_sampling_rule_for_another_service_is_said_never_to_apply() {
    let sentence = "the local sampling rule Cruddur never applies: it is for the service \"backend-flask\", but this service is \
                    \"cruddur\"; Default samples one request per second, then 5 %; next: use the same name in both";
    told_at_start(XRAY, &[("OTEL_SERVICE_NAME", "cruddur")], sentence);
    let daemon = daemon_in("us-east-1", "Cruddur");
    let address = daemon.addr().to_string();
    let sentence = "no sampling rule of this account matches the service \"backend-flask\" (Cruddur is for \"Cruddur\"); the rule Default applies; next: ";
    checked(XRAY, &[("AWS_XRAY_DAEMON_ADDRESS", &address)], sentence);
}

#[test]
fn t10_rules_that_cannot_be_fetched_are_said_while_segments_go_through() {
    let daemon = XRayDaemon::without_tcp();
    let address = daemon.addr().to_string();
    let sentence = format!(
        "connection refused by http://{address}/GetSamplingRules; requests are sampled by the local rule; next: start the \
         daemon, and publish port 2000/tcp as well as 2000/udp"
    );
    told_when_sent(XRAY, &[("AWS_XRAY_DAEMON_ADDRESS", &address)], &sentence);
    daemon.wait_for_datagrams(2, SOON);
}

#[test]
fn t11_a_region_that_is_none_is_doubted_with_the_nearest_one() {
    let sentence = "unknown AWS region: AWS_REGION=can-central-1; did you mean ca-central-1?";
    told_at_start(XRAY, &[("AWS_REGION", "can-central-1")], sentence);
    let env = [("AWS_REGION", "can-central-1"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")];
    told_at_start(CLOUDWATCH, &env, sentence);
}

#[test]
fn t11_a_daemon_in_another_region_is_found_out_by_its_rules() {
    let daemon = daemon_in("us-east-1", "backend-flask");
    let address = daemon.addr().to_string();
    let env = [("AWS_XRAY_DAEMON_ADDRESS", address.as_str()), ("AWS_REGION", "ca-central-1")];
    let sentence = format!(
        "region mismatch: the daemon at {address} sends traces to the region us-east-1, but AWS_REGION=ca-central-1; next: look \
         for traces in us-east-1, or start the daemon with the region ca-central-1"
    );
    told_when_sent(XRAY, &env, &sentence);
    checked(XRAY, &env, "https://console.aws.amazon.com/xray/home?region=us-east-1#/traces");
}

#[test]
fn t13_a_key_that_is_unset_empty_misspelt_or_not_filled_in_is_never_sent() {
    let next = "next: export HONEYCOMB_API_KEY=... and start again (without a key nothing is sent)";
    for (env, hint) in [
        (&[][..], "HONEYCOMB_API_KEY is not set in this process"),
        (&[("HONEYCOMB_API_KEY", "")], "HONEYCOMB_API_KEY is set, but empty"),
        (
            &[("HONEYCOM_API_KEY", "abc")],
            "HONEYCOMB_API_KEY is not set in this process, but HONEYCOM_API_KEY is: a typo?",
        ),
        (&[("HONEYCOMB_API_KEY", "${HONEYCOMB_API_KEY}")], "HONEYCOMB_API_KEY is set, but its value cannot be a key"),
    ] {
        told_at_start(HONEYCOMB, env, &format!("no API key: {hint}; {next}"));
    }
}

#[test]
fn t13_a_key_in_quotes_is_noticed() {
    told_at_start(
        HONEYCOMB,
        &[("HONEYCOMB_API_KEY", "\"abcdefghijklmnopqrwxyz\""), NOWHERE],
        "HONEYCOMB_API_KEY: the quotes around its value are ignored; next: write the value without them (docker's env files keep quotes)",
    );
}

#[test]
fn t13_a_key_that_is_refused_is_told_by_its_length_and_its_end() {
    let collector =
        Collector::start([Reply::json(401, &json!({ "message": "unknown API key - check your credentials" }))]);
    let url = collector.url();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("HONEYCOMB_API_KEY", "abcdefghijklmnopqrwxyz")];
    let sentence = format!(
        "HTTP 401 Unauthorized from {url}/v1/traces (unknown API key - check your credentials); next: check the API key ending in wxyz \
         (22 characters), and that the endpoint is in the region of the key"
    );
    told_when_sent(HONEYCOMB, &env, &sentence);
}

#[test]
fn t14_a_header_in_the_wrong_form_is_named_with_its_place_and_the_right_form() {
    let headers = "a=b,x-honeycomb-team: abcdefghijklmnopqrwxyz";
    let env = [("OTEL_EXPORTER_OTLP_HEADERS", headers)];
    told_at_start(
        HONEYCOMB,
        &env,
        "OTEL_EXPORTER_OTLP_HEADERS: header 2 is not sent; next: write name=value, not name: value",
    );
}

#[test]
fn t15_whoever_does_not_wait_loses_nothing() {
    let collector = Collector::ok();
    let url = collector.url();
    let toml = "[honeycomb]\nenabled = true\n";
    told_at_start(toml, &to(&url), "a batch is sent after 5000 ms");
    let program = start(toml, &to(&url));
    program.get(HOME);
    assert_eq!(program.backend("honeycomb")["queued"], 2);
    assert_eq!(program.terminate().counts("honeycomb"), [2, 0, 0, 0, 0]);
}

#[test]
fn t16_a_service_always_has_a_name_and_a_placeholder_is_warned_about() {
    start("", &[]).wait_for_stderr(" as backend-flask (settings: ");
    let sentence = "OTEL_SERVICE_NAME=unknown_service: every program without a name has this name, so their traces are mixed; next: choose \
                    another name";
    told_at_start("", &[("OTEL_SERVICE_NAME", "unknown_service")], sentence);
}

#[test]
fn t17_an_endpoint_where_nobody_listens_is_one_line() {
    let sentence = "connection refused by http://127.0.0.1:9/v1/traces; next: start the receiver, or correct OTEL_EXPORTER_OTLP_ENDPOINT \
                    (inside a container, localhost is the container)";
    told_when_sent(HONEYCOMB, &to("http://127.0.0.1:9"), sentence);
}

#[test]
fn t18_a_path_that_is_there_twice_or_missing_is_said() {
    let collector = Collector::ok();
    let url = collector.url();
    let twice = format!("{url}/v1/traces");
    let sentence = format!(
        "OTEL_EXPORTER_OTLP_ENDPOINT={twice}: the base address ends with /v1/traces already, so it is not appended again; next: remove \
         /v1/traces from it"
    );
    told_at_start(HONEYCOMB, &to(&twice), &sentence);
    let sentence = format!(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={url}/: /v1/traces is not appended to this address; append it, or use \
         OTEL_EXPORTER_OTLP_ENDPOINT"
    );
    told_at_start(HONEYCOMB, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &url)], &sentence);
}

#[test]
fn t18_a_classic_key_without_a_dataset_is_known_before_and_after_it_was_refused() {
    let sentence = "HONEYCOMB_API_KEY: the key ending in cdef (32 characters) is a Classic key, which needs a dataset; next: set \
                    HONEYCOMB_DATASET, or dataset in [honeycomb]";
    told_at_start(HONEYCOMB, &[("HONEYCOMB_API_KEY", "0123456789abcdef0123456789abcdef"), NOWHERE], sentence);
    let collector = Collector::start([Reply::json(401, &json!({ "message": "missing 'x-honeycomb-dataset' header" }))]);
    told_when_sent(
        HONEYCOMB,
        &to(&collector.url()),
        "(missing 'x-honeycomb-dataset' header); next: set `dataset` in [honeycomb]; a Classic key needs a dataset",
    );
}

#[test]
fn t18_grpc_is_told_from_http() {
    told_at_start(
        HONEYCOMB,
        &to("http://127.0.0.1:4317"),
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317/v1/traces: port 4317 is usually for gRPC; use port 4318 for OTLP over HTTP",
    );
    told_at_start(
        HONEYCOMB,
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: this protocol is not supported; http/json is used; next: ",
    );
    told_at_start(
        HONEYCOMB,
        &to("api.honeycomb.io:443"),
        "OTEL_EXPORTER_OTLP_ENDPOINT=api.honeycomb.io:443: invalid URL without http:// or https://; next: write https://api.honeycomb.io",
    );
    let collector = Collector::start([Reply::Garbage]);
    told_when_sent(HONEYCOMB, &to(&collector.url()), "next: use port 4318 for OTLP over HTTP; port 4317 is for gRPC");
}

#[test]
fn t18_an_address_that_was_not_filled_in_is_not_used() {
    for url in ["http://${COLLECTOR}:4318", "http://$COLLECTOR:4318"] {
        told_at_start(
            HONEYCOMB,
            &to(url),
            "a variable in the address was not replaced; next: write the address in full",
        );
    }
}

#[test]
fn t19_without_frontend_url_the_front_end_is_localhost_and_requests_succeed() {
    told_at_start("", &[], "FRONTEND_URL is not set: pages of http://localhost:3000 may call the API");
    let answer = start("", &[]).get(HOME);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("http://localhost:3000")));
    told_at_start(
        "",
        &[("FRONTEND_URL", "https://3000-${GITPOD_WORKSPACE_ID}.gitpod.io")],
        " is ignored, because a variable in it was not replaced; next: write the address in full",
    );
}

#[test]
fn t22_a_trace_that_the_caller_did_not_sample_is_there_with_the_reason() {
    let collector = Collector::ok();
    let program = start(HONEYCOMB, &to(&collector.url()));
    let unsampled = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    Client::connect(program.addr()).request("GET", HOME, &[unsampled], b"");
    let traces = program.get("/telemetry/traces").json().to_string();
    assert!(traces.contains("not sampled: the caller decided so"), "{traces}");
    assert_eq!(program.backend("honeycomb")["sampled_out"], 2);
}

#[test]
fn t23_cloudwatch_is_off_until_asked_for_and_keeps_its_lines_for_a_week() {
    let sentence = "enabled is not set; put enabled = true under [cloudwatch] in telemetry.toml";
    start("", &[]).wait_for_stderr(sentence);
    checked("", &[], sentence);
    let service = CloudWatch::start();
    let url = service.url();
    told_at_start(CLOUDWATCH, &aws(&url), "lines are kept 7 days");
    assert_eq!(service.groups(), [("cruddur".to_owned(), Some(7))]);
    told_at_start(
        &format!("{CLOUDWATCH}log_stream = \"x-{{pid}}\"\n"),
        &aws(&url),
        "[cloudwatch] log_stream = \"x-{pid}\": every start creates a new log stream; next: use {hostname} for one stream per machine",
    );
}

#[test]
fn t24_everything_goes_off_and_on_again_without_touching_code() {
    let collector = Collector::ok();
    let program = start(HONEYCOMB, &to(&collector.url()));
    for (enabled, state) in [("false", "off"), ("true", "on")] {
        program.switch(&HONEYCOMB.replace("true", enabled));
        assert_eq!(program.backend("honeycomb")["state"], state);
        assert_eq!(program.get(HOME).status, 200);
    }
}

#[test]
fn t25_a_daemon_without_credentials_or_region_is_said_to_have_a_log() {
    let daemon = XRayDaemon::start();
    let address = daemon.addr().to_string();
    told_when_sent(
        XRAY,
        &[("AWS_XRAY_DAEMON_ADDRESS", &address)],
        &format!(
            "HTTP 500 Internal Server Error from http://{address}/GetSamplingRules; requests are sampled by the local rule; next: look for \
             errors about credentials and region in the log of the daemon"
        ),
    );
}

#[test]
fn t26_a_key_that_does_not_exist_stops_the_start_and_changes_nothing_later() {
    let toml = format!("{CLOUDWATCH}region_name = \"us-east-1\"\n");
    let sentence = "telemetry.toml:4:1: unknown key \"region_name\" in [cloudwatch]; known are enabled, log_group, ";
    for command in ["serve", "check"] {
        let exit = Program::run_to_end(&[command], &[], Some(&toml));
        assert_eq!(exit.status.code(), Some(2));
        assert!(exit.stderr.contains(sentence), "{}", exit.stderr);
    }
    let program = start("", &[]);
    program.save(&toml);
    program.wait_for_stderr(sentence);
    assert!(wait_until(SOON, || status_says(&program, sentence)), "{:#}", status(&program));
}

#[test]
fn t27_either_variable_is_a_region_and_which_one_won_is_said() {
    let service = CloudWatch::start();
    let url = service.url();
    let mut env = aws(&url);
    env[0].0 = "AWS_DEFAULT_REGION";
    told_at_start(CLOUDWATCH, &env, &format!("region {} from AWS_DEFAULT_REGION", CloudWatch::REGION));
    let two = [&aws(&url)[..], &[("AWS_DEFAULT_REGION", "sa-east-1")]].concat();
    told_at_start(
        CLOUDWATCH,
        &two,
        &format!(
            "cruddur uses AWS_REGION={}, but Python's SDK and the aws command use AWS_DEFAULT_REGION=sa-east-1",
            CloudWatch::REGION
        ),
    );
}

#[test]
fn t31_a_key_in_a_file_that_others_read_or_git_tracks_is_warned_about_and_never_shown() {
    let toml = format!("{HONEYCOMB}api_key = \"abcdefghijklmnopqrwxyz\"\nendpoint = \"http://127.0.0.1:9\"\n");
    let sentence =
        "telemetry.toml:6: api_key, ending in wxyz (22 characters), can be read by other users; next: chmod 600";
    told_at_start(&toml, &[], sentence);
    // A repository whose index names the file: 62 bytes of times and hashes, the length of its
    // name, the name, a zero.
    let program = start("", &[]);
    fs::create_dir(program.dir().join(".git")).unwrap();
    let entry = [&[0; 62][..], &14_u16.to_be_bytes(), b"telemetry.toml\0"].concat();
    fs::write(program.dir().join(".git/index"), [&b"DIRC\0\0\0\x02\0\0\0\x01"[..], &entry].concat()).unwrap();
    program.switch(&toml);
    program.wait_for_stderr(
        "is in a file that git tracks; a push would publish it; next: remove it, use HONEYCOMB_API_KEY",
    );
    assert!(status_says(&program, "is in a file that git tracks"));
    let text = format!("{}{:#}", program.stderr(), status(&program));
    assert!(!text.contains("abcdefgh") && !text.contains("pqrwxyz"), "{text}");
}

#[test]
fn seconds_where_milliseconds_are_meant_are_noticed() {
    told_at_start(
        HONEYCOMB,
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "10"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")],
        "OTEL_EXPORTER_OTLP_TIMEOUT: timeout = 10 is in milliseconds; write 10000 if you mean seconds",
    );
}

#[test]
fn a_page_that_is_open_to_the_world_is_warned_about() {
    let toml = "[page]\nallow_remote = true\n";
    let env = [("CRUDDUR_LISTEN", "0.0.0.0:0")];
    let sentence = "[page] allow_remote = true while listening on 0.0.0.0:0 (CRUDDUR_LISTEN): every client of this port can read all traces";
    told_at_start(toml, &env, sentence);
}

#[test]
fn a_clock_that_is_wrong_is_found_out_by_the_answers_date() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let collector = Collector::start([Reply::ok().with_header("Date", &http_date(now - 605))]);
    checked(HONEYCOMB, &to(&collector.url()), "this machine's clock is 10 min");
}

fn aws(url: &str) -> [(&str, &str); 4] {
    [
        ("AWS_REGION", CloudWatch::REGION),
        ("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET),
        ("AWS_ENDPOINT_URL", url),
    ]
}

/// A daemon whose account has the course's rule, for this service.
fn daemon_in(region: &str, service: &str) -> XRayDaemon {
    let daemon = XRayDaemon::start();
    let rule = |name: &str, service: &str| {
        json!({
            "RuleName": name, "RuleARN": format!("arn:aws:xray:{region}:123456789012:sampling-rule/{name}"), "ResourceARN": "*",
            "Priority": 9000, "FixedRate": 0.1, "ReservoirSize": 5, "ServiceName": service, "ServiceType": "*", "Host": "*",
            "HTTPMethod": "*", "URLPath": "*", "Version": 1, "Attributes": {},
        })
    };
    daemon.set_rules(&[rule("Cruddur", service), rule("Default", "*")]);
    daemon
}

//! Sampling for X-Ray through the real program: which rule decided, the reason, and the statistics
//! that X-Ray receives.

use std::collections::{BTreeMap, HashSet};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Answer, Client, Program, RULES_MODIFIED, Reply, SOON, Setup, XRayDaemon, log_lines, wait_until};

const HOME: &str = "/api/activities/home";
const USER: &str = "/api/activities/@andrewbrown";
const ADDRESS: &str = "AWS_XRAY_DAEMON_ADDRESS";
const ROOT: &str = "1-4efaaf4d-1e8720b39541901950019ee5";
/// Rules are fetched so often that a test need not wait.
const OFTEN: &str = "rules_interval = 100\n";
/// Rules are fetched at start-up, and afterwards only for a reason.
const ONCE: &str = "rules_interval = 3600000\n";
const RULES: &str = "GetSamplingRules";
const TARGETS: &str = "SamplingTargets";

/// A program that reports ten times a second.
fn setup(daemon: &XRayDaemon, more: &str) -> Setup {
    let toml = "[console]\nenabled = false\n[xray]\nenabled = true\nschedule_delay = 20\ntargets_interval = 100\n";
    Program::setup().toml(&format!("{toml}{more}")).env(ADDRESS, daemon.addr())
}

/// A rule for all requests.
fn rule(name: &str, priority: u32, rate: f64, reservoir: u32) -> Value {
    json!({
        "RuleName": name,
        "RuleARN": format!("arn:aws:xray:eu-central-1:000000000000:sampling-rule/{name}"),
        "ResourceARN": "*",
        "Priority": priority,
        "FixedRate": rate,
        "ReservoirSize": reservoir,
        "ServiceName": "*",
        "ServiceType": "*",
        "Host": "*",
        "HTTPMethod": "*",
        "URLPath": "*",
        "Version": 1,
        "Attributes": {},
    })
}

/// The same rule with another value for one key.
fn but(mut rule: Value, key: &str, value: impl Into<Value>) -> Value {
    rule[key] = value.into();
    rule
}

fn target(name: &str, rate: f64, quota: Option<u32>, until: Option<f64>) -> Value {
    json!({
        "RuleName": name,
        "FixedRate": rate,
        "ReservoirQuota": quota,
        "ReservoirQuotaTTL": until,
        "Interval": 10,
        "SamplingBoost": { "BoostRate": 0.5 },
    })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

/// Waits until a new second begins, so that the following requests probably fall into one second.
fn wait_for_a_new_second() {
    let second = now().floor();
    assert!(wait_until(Duration::from_secs(2), || now().floor() > second), "the clock stands still");
}

fn home(program: &Program) -> Answer {
    let answer = program.get(HOME);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// The newest `count` requests of `/telemetry/traces`, newest first.
fn newest(program: &Program, count: usize) -> Vec<Value> {
    let list = program.get("/telemetry/traces").json();
    let traces = list["traces"].as_array().unwrap_or_else(|| panic!("no list: {list:#}"));
    traces[..count.min(traces.len())].to_vec()
}

fn reason(trace: &Value) -> &str {
    trace["backends"]["xray"]["sampling"].as_str().unwrap_or_else(|| panic!("no reason in {trace:#}"))
}

fn is_sampled(trace: &Value) -> bool {
    trace["backends"]["xray"]["sampled"].as_bool().unwrap_or_else(|| panic!("no decision in {trace:#}"))
}

/// The reason why the request with this response was sampled or not.
fn reason_for(program: &Program, answer: &Answer) -> String {
    let traces = newest(program, 200);
    let trace = traces.iter().find(|trace| trace["trace_id"] == answer.trace_id());
    reason(trace.unwrap_or_else(|| panic!("{} is not listed", answer.trace_id()))).to_owned()
}

/// Requests the home page until the reason satisfies `condition`.
#[track_caller]
fn ask_until(program: &Program, condition: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    let held = wait_until(SOON, || {
        last = reason_for(program, &home(program));
        condition(&last)
    });
    assert!(held, "the last reason was {last:?}");
    last
}

/// Waits until the rules of X-Ray are in force.
fn wait_for_rules(program: &Program) -> String {
    let sampling = |xray: &Value| xray["sampling"].as_str().unwrap_or_default().to_owned();
    sampling(&program.wait_for_backend("xray", |xray| sampling(xray).starts_with("rules from X-Ray: ")))
}

/// A reply as text, for a test's message.
fn shown(answer: &Reply) -> String {
    match answer {
        Reply::Answer(status, _, body) => format!("{status} {:.200}", String::from_utf8_lossy(body)),
        other => format!("{other:?}"),
    }
}

fn warnings(stderr: &str) -> Vec<&str> {
    log_lines(stderr, "xray").into_iter().filter(|line| line.contains(" WARN ")).collect()
}

/// The number of requests per second, and how many of them had a reason with these words.
fn by_second<'a>(traces: &'a [Value], words: &str) -> BTreeMap<&'a str, (usize, usize)> {
    let mut seconds = BTreeMap::new();
    for trace in traces {
        let second = trace["started_at"].as_str().and_then(|time| time.get(..19)).expect("a time");
        let (all, with) = seconds.entry(second).or_insert((0, 0));
        *all += 1;
        *with += usize::from(reason(trace).contains(words));
    }
    seconds
}

/// The random number in a reason like
/// `not sampled: rule Cruddur (local), drew 0.5000, sampled up to 0.1`.
fn drawn(reason: &str) -> f64 {
    let (_, lot) = reason.split_once("drew ").unwrap_or_else(|| panic!("no lot in {reason}"));
    lot.split(',').next().and_then(|lot| lot.parse().ok()).unwrap_or_else(|| panic!("no number in {reason}"))
}

#[test]
fn of_thirty_five_requests_in_a_second_five_are_taken_and_each_says_why() {
    for (daemon, tells) in [
        (XRayDaemon::start(), "HTTP 500 Internal Server Error from http://"),
        (XRayDaemon::without_tcp(), "connection refused by http://"),
    ] {
        let program = setup(&daemon, OFTEN).start();
        program.wait_for_stderr(tells);
        let sampling = program.backend("xray")["sampling"].as_str().unwrap_or_default().to_owned();
        assert!(sampling.contains("no rules from X-Ray") && sampling.contains("Cruddur (5 per second"), "{sampling}");

        let mut client = Client::connect(program.addr());
        wait_for_a_new_second();
        for _ in 0..35 {
            assert_eq!(client.get(HOME).status, 200);
        }
        let traces = newest(&program, 200);
        assert_eq!(traces.len(), 35);
        for (second, (all, taken)) in by_second(&traces, "sampled: rule Cruddur (local), reservoir ") {
            assert_eq!(taken, all.min(5), "in {second}: {traces:#?}");
        }
        let sampled: HashSet<_> =
            traces.iter().filter(|trace| is_sampled(trace)).map(|trace| trace["xray_trace_id"].clone()).collect();
        for trace in &traces {
            let reason = reason(trace);
            if is_sampled(trace) && reason.contains("reservoir") {
                assert!(reason.ends_with(" of 5 this second"), "{reason}");
            } else {
                assert!(reason.contains("sampled: rule Cruddur (local), drew "), "{reason}");
                assert!(reason.ends_with(", sampled up to 0.1"), "{reason}");
                // The number is shown with four decimals. If it is shown as equal to the rate, both
                // decisions are possible.
                assert!(is_sampled(trace) == (drawn(reason) <= 0.1) || drawn(reason) == 0.1, "{reason}");
            }
            assert_eq!(reason.starts_with("sampled: "), is_sampled(trace), "{reason}");
        }

        daemon.wait_for_datagrams(sampled.len(), SOON);
        let exit = program.terminate();
        let documents = daemon.documents();
        assert_eq!(documents.iter().map(|document| document["trace_id"].clone()).collect::<HashSet<_>>(), sampled);
        assert_eq!(documents.len(), sampled.len());
        for document in &documents {
            assert_eq!(document["aws"]["xray"]["sampling_rule_name"], "Cruddur", "{document:#}");
        }
        let [delivered, _, _, sampled_out, _] = exit.counts("xray");
        assert_eq!((delivered as usize, sampled_out as usize), (2 * sampled.len(), 2 * (35 - sampled.len())));
        let warnings = warnings(&exit.stderr);
        let [line] = warnings[..] else { panic!("not one line: {warnings:#?}") };
        assert!(line.contains(tells) && line.contains("sampled by the local rule"), "{line}");
        assert!(line.contains(&daemon.addr().to_string()), "{line}");
    }
}

#[test]
fn of_what_the_reservoir_leaves_about_a_tenth_is_taken() {
    const REQUESTS: usize = 3000;
    let daemon = XRayDaemon::start();
    let program = setup(&daemon, ONCE).start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(program.addr());
                (0..REQUESTS / 4).for_each(|_| assert_eq!(client.get(HOME).status, 200));
            });
        }
    });
    let exit = program.terminate();
    let documents = daemon.documents();
    assert_eq!(exit.counts("xray")[0] as usize, 2 * documents.len());
    let mut seconds = BTreeMap::new();
    for document in &documents {
        *seconds.entry(document["start_time"].as_f64().expect("a time") as u64).or_insert(0_usize) += 1;
    }
    let by_reservoir: usize = seconds.values().map(|taken| taken.min(&5)).sum();
    // Five standard deviations from a tenth of the requests. One run in a million exceeds that.
    let (by_lot, lots) = (documents.len() - by_reservoir, REQUESTS - by_reservoir);
    let expected = lots as f64 * 0.1;
    let room = 5.0 * (expected * 0.9).sqrt();
    assert!((by_lot as f64 - expected).abs() <= room, "{by_lot} of {lots} is not a tenth, give or take {room}");
}

#[test]
fn the_rules_of_x_ray_take_over_when_they_arrive() {
    let daemon = XRayDaemon::start();
    let program = setup(&daemon, OFTEN).start();
    daemon.wait_for_questions(RULES, 3, SOON);
    assert!(reason_for(&program, &home(&program)).contains("rule Cruddur (local)"));

    daemon.set_rules(&[rule("Everything", 1, 1.0, 0)]);
    let says = ask_until(&program, |reason| reason.contains("(from X-Ray)"));
    assert!(says.starts_with("sampled: rule Everything (from X-Ray), drew "), "{says}");
    assert!(wait_for_rules(&program).contains("Everything (0 per second, then 100 %)"));
    let answer = home(&program);
    let document = daemon.wait_for_trace(answer.trace_id(), SOON);
    assert_eq!(document["aws"]["xray"]["sampling_rule_name"], "Everything");

    for question in daemon.questions(RULES) {
        assert_eq!((question.content_type.as_str(), &question.body), ("application/json", &json!({})));
    }
    let exit = program.terminate();
    assert_eq!(warnings(&exit.stderr).len(), 1, "{}", exit.stderr);
    let told = log_lines(&exit.stderr, "xray").into_iter().filter(|line| line.contains("rules from X-Ray: ")).count();
    assert_eq!(told, 1, "each change is told once: {}", exit.stderr);
}

#[test]
fn rules_that_come_in_pages_are_all_read() {
    let daemon = XRayDaemon::start();
    daemon.set_rule_pages(&[
        &[rule("Third", 3, 0.0, 0)],
        &[but(rule("Second", 2, 0.0, 0), "URLPath", "/api/activities/@*")],
        &[but(rule("First", 1, 0.0, 0), "URLPath", "/api/activities/@bayko")],
    ]);
    let program = setup(&daemon, ONCE).start();
    wait_for_rules(&program);
    for (path, name) in [(HOME, "Third"), (USER, "Second"), ("/api/activities/@bayko", "First")] {
        assert!(reason_for(&program, &program.get(path)).contains(&format!("rule {name} (from X-Ray)")), "{path}");
    }
    let tokens: Vec<_> = daemon.questions(RULES).iter().map(|question| question.body["NextToken"].clone()).collect();
    assert_eq!(tokens, [Value::Null, json!("1"), json!("2")]);
}

#[test]
fn rules_that_change_are_fetched_when_x_ray_says_so() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Before", 1, 1.0, 0)]);
    daemon.set_targets(&[], RULES_MODIFIED);
    let program = setup(&daemon, ONCE).start();
    ask_until(&program, |reason| reason.contains("rule Before (from X-Ray)"));
    daemon.wait_for_questions(TARGETS, 1, SOON);
    let asked = daemon.questions(RULES).len();

    daemon.set_rules(&[rule("After", 1, 1.0, 0)]);
    daemon.set_targets(&[], now());
    ask_until(&program, |reason| reason.contains("rule After (from X-Ray)"));
    // The same time again means that no rule has changed.
    let reports = daemon.questions(TARGETS).len();
    let reported = wait_until(SOON, || {
        home(&program);
        daemon.questions(TARGETS).len() >= reports + 5
    });
    assert!(reported);
    assert!(daemon.questions(RULES).len() <= asked + 2, "fetched with every report");
}

#[test]
fn rules_that_change_before_the_first_report_are_fetched_too() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Before", 1, 1.0, 0)]);
    let program = setup(&daemon, ONCE).start();
    wait_for_rules(&program);
    daemon.set_rules(&[rule("After", 1, 1.0, 0)]);
    // Later than the present rules, and later than their fetch: the program may compare with
    // either.
    daemon.set_targets(&[], now() + 5.0);
    ask_until(&program, |reason| reason.contains("rule After (from X-Ray)"));
}

#[test]
fn the_rule_with_the_lowest_priority_goes_first_and_those_of_another_kind_are_passed_over() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[
        rule("Default", 10_000, 0.0, 0),
        rule("B", 5, 0.0, 0),
        rule("A", 5, 0.0, 0),
        but(rule("Posts", 4, 0.0, 0), "HTTPMethod", "post"),
        but(rule("Users", 3, 0.0, 0), "URLPath", "/api/*/@?ndrew*"),
        but(rule("Shop", 2, 0.0, 0), "Host", "shop.*"),
        but(rule("Another service", 1, 0.0, 0), "ServiceName", "front-end"),
        but(rule("Another version", 1, 1.0, 0), "Version", 2),
        but(rule("Another resource", 1, 1.0, 0), "ResourceARN", "arn:aws:s3:::bucket"),
        but(rule("Attributes", 1, 1.0, 0), "Attributes", json!({ "stage": "test" })),
    ]);
    let program = setup(&daemon, ONCE).start();
    let sampling = wait_for_rules(&program);
    assert!(!sampling.contains("Another version") && !sampling.contains("Attributes"), "{sampling}");
    let mut client = Client::connect(program.addr());
    for (method, path, headers, name) in [
        ("GET", HOME, vec![], "A"),
        ("GET", USER, vec![], "Users"),
        ("GET", "/api/activities/@bayko", vec![], "A"),
        ("POST", "/api/messages", vec![], "Posts"),
        ("GET", HOME, vec![("Host", "SHOP.example:8443")], "Shop"),
    ] {
        let answer = client.request(method, path, &headers, b"");
        let says = reason_for(&program, &answer);
        assert!(says.starts_with(&format!("not sampled: rule {name} (from X-Ray), drew ")), "{path}: {says}");
    }
}

#[test]
fn a_rule_without_a_quota_borrows_one_a_second() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Cruddur", 1, 0.0, 50)]);
    let program = setup(&daemon, ONCE).start();
    wait_for_rules(&program);
    let mut client = Client::connect(program.addr());
    wait_for_a_new_second();
    (0..20).for_each(|_| assert_eq!(client.get(HOME).status, 200));
    let traces = newest(&program, 200);
    assert_eq!(traces.len(), 20);
    let words = "sampled: rule Cruddur (from X-Ray), borrowed one request this second";
    for (second, (_, borrowed)) in by_second(&traces, words) {
        assert_eq!(borrowed, 1, "in {second}: {traces:#?}");
    }
    assert_eq!(traces.iter().filter(|trace| is_sampled(trace) != reason(trace).starts_with(words)).count(), 0);
}

#[test]
fn a_quota_is_honoured_until_it_runs_out() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Cruddur", 1, 0.5, 50)]);
    daemon.set_targets(&[target("Cruddur", 0.0, Some(3), Some(now() + 3600.0))], now());
    let program = setup(&daemon, ONCE).start();
    ask_until(&program, |reason| reason.contains("reservoir ") && reason.contains(" of 3 this second"));
    assert!(program.backend("xray")["sampling"].as_str().is_some_and(|says| says.contains("then 0 %")));

    let mut client = Client::connect(program.addr());
    // In the second in which the quota arrived, one request may have been borrowed before it.
    wait_for_a_new_second();
    (0..20).for_each(|_| assert_eq!(client.get(HOME).status, 200));
    let traces = newest(&program, 20);
    for (second, (all, taken)) in by_second(&traces, "sampled: rule Cruddur (from X-Ray), reservoir ") {
        assert_eq!(taken, all.min(3), "in {second}: {traces:#?}");
    }
    for trace in traces.iter().filter(|trace| !is_sampled(trace)) {
        assert!(reason(trace).ends_with(", sampled up to 0"), "the rate of the target, too: {}", reason(trace));
    }
}

#[test]
fn a_quota_that_has_run_out_is_none() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Cruddur", 1, 0.0, 50)]);
    daemon.set_targets(&[target("Cruddur", 0.0, Some(3), Some(now() + 3.0))], now());
    let program = setup(&daemon, ONCE).start();
    ask_until(&program, |reason| reason.contains(" of 3 this second"));
    // Later responses do not mention the quota, so the earlier quota and its end stay in force.
    daemon.set_targets(&[target("Cruddur", 0.0, None, None)], RULES_MODIFIED);
    ask_until(&program, |reason| reason.contains("borrowed one request this second"));
}

#[test]
fn x_ray_is_told_what_happened_under_each_rule() {
    const REQUESTS: u64 = 60;
    let daemon = XRayDaemon::start();
    let users = but(rule("Users", 1, 1.0, 0), "URLPath", "/api/activities/@*");
    daemon.set_rules(&[users, rule("Cruddur", 2, 0.5, 50), rule("Never", 3, 1.0, 1)]);
    let program = setup(&daemon, ONCE).start();
    wait_for_rules(&program);
    let mut client = Client::connect(program.addr());
    for _ in 0..REQUESTS {
        assert_eq!(client.get(HOME).status, 200);
    }
    (0..3).for_each(|_| assert_eq!(client.get(USER).status, 200));
    // The header decides without a rule, so no rule counts this request.
    let header = format!("Root={ROOT};Sampled=1");
    assert_eq!(client.request("GET", HOME, &[("X-Amzn-Trace-Id", &header)], b"").status, 200);

    let mut told: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let all_told = wait_until(SOON, || {
        told.clear();
        for report in daemon.questions(TARGETS) {
            for document in report.body["SamplingStatisticsDocuments"].as_array().expect("documents") {
                let sums = told.entry(document["RuleName"].as_str().expect("a name").to_owned()).or_default();
                for (sum, key) in sums.iter_mut().zip(["RequestCount", "SampledCount", "BorrowCount"]) {
                    *sum += document[key].as_u64().unwrap_or_else(|| panic!("no {key} in {document:#}"));
                }
            }
        }
        told.values().map(|[requests, ..]| requests).sum::<u64>() >= REQUESTS + 3
    });
    assert!(all_told, "{told:#?}");

    let traces = newest(&program, 200);
    let with = |words: &str| traces.iter().filter(|trace| reason(trace).starts_with(words)).count() as u64;
    let borrowed = with("sampled: rule Cruddur (from X-Ray), borrowed");
    let by_lot = with("sampled: rule Cruddur (from X-Ray), drew");
    assert!(borrowed >= 1 && by_lot >= 1, "{traces:#?}");
    let expected = [("Cruddur".to_owned(), [REQUESTS, by_lot, borrowed]), ("Users".to_owned(), [3, 3, 0])];
    assert_eq!(told, BTreeMap::from(expected));

    let reports = daemon.questions(TARGETS);
    let mut ids = Vec::new();
    for report in &reports {
        assert_eq!(report.content_type, "application/json");
        let documents = report.body["SamplingStatisticsDocuments"].as_array().expect("documents");
        assert!(!documents.is_empty(), "a report of nothing: {report:#?}");
        for document in documents {
            let at = document["Timestamp"].as_f64().expect("a time");
            assert!((now() - at).abs() < 60.0, "{document:#}");
            assert!(document["RequestCount"].as_u64() > Some(0), "a rule without requests has nothing to tell");
            ids.push(document["ClientID"].as_str().expect("an id"));
        }
    }
    ids.dedup();
    let [id] = &ids[..] else { panic!("one process has one id: {ids:?}") };
    assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{id}");
}

/// Gives invalid responses to requests for rules, each at least twice. The program keeps answering
/// requests, and later accepts valid rules.
fn assert_harmless(answers: Vec<Reply>) {
    let daemon = XRayDaemon::start();
    let program = setup(&daemon, OFTEN).start();
    for answer in answers {
        daemon.answer_rules_with([answer.clone()]);
        let asked = daemon.questions(RULES).len();
        let again = wait_until(SOON, || daemon.questions(RULES).len() >= asked + 2);
        assert!(again, "nobody asks any more after {}", shown(&answer));
        let says = reason_for(&program, &home(&program));
        assert!(says.contains("rule Cruddur (local)"), "{}: {says}", shown(&answer));
    }
    daemon.set_rules(&[rule("Good", 1, 1.0, 0)]);
    ask_until(&program, |reason| reason.contains("rule Good (from X-Ray)"));
    let exit = program.terminate();
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[test]
fn an_answer_that_is_no_json_harms_nothing() {
    let json = |text: &str| Reply::text(200, "application/json", text);
    assert_harmless(vec![
        json(""),
        json("{"),
        json("\u{0}"),
        json("<html>not here</html>"),
        json(&"[".repeat(100_000)),
        Reply::Garbage,
        Reply::Reset,
        Reply::text(200, "text/html", "<html>a proxy</html>"),
        Reply::json(302, &json!({})).with_header("Location", "http://127.0.0.1:1/"),
        Reply::json(429, &json!({ "__type": "ThrottledException" })),
        Reply::json(502, &json!({ "message": "bad gateway" })),
    ]);
}

#[test]
fn an_answer_of_another_shape_harms_nothing() {
    let records = |records: Value| Reply::json(200, &json!({ "SamplingRuleRecords": records }));
    assert_harmless(vec![
        Reply::json(200, &json!([])),
        Reply::json(200, &json!({})),
        Reply::json(200, &json!(null)),
        Reply::json(200, &json!({ "message": "not what you think" })),
        Reply::json(200, &json!({ "SamplingRuleRecords": [], "NextToken": "0" })),
        Reply::json(200, &json!({ "SamplingRuleRecords": [], "NextToken": { "a": [1] } })),
        records(json!({})),
        records(json!("rules")),
        records(json!([{}, { "SamplingRule": null }, { "SamplingRule": 7 }])),
        records(json!([{ "SamplingRule": { "RuleName": "Half" } }])),
        records(json!([{ "SamplingRule": but(rule("Bad", 1, 1.0, 0), "FixedRate", "much") }])),
        records(json!([{ "SamplingRule": but(rule("Bad", 1, 1.0, 0), "ReservoirSize", -1) }])),
        records(json!([{ "SamplingRule": but(rule("Bad", 1, 1.0, 0), "Priority", 1e300) }])),
    ]);
}

#[test]
fn a_record_that_is_no_object_harms_nothing() {
    assert_harmless(vec![Reply::json(
        200,
        &json!({ "SamplingRuleRecords": [7, "rule", [rule("Bad", 1, 1.0, 0)], null] }),
    )]);
}

#[test]
fn rules_stay_when_a_later_answer_has_none_to_read() {
    for answer in [
        Reply::json(200, &json!({ "message": "not what you think" })),
        Reply::json(200, &json!([])),
        Reply::text(200, "text/html", "<html>a proxy</html>"),
        Reply::json(503, &json!({})),
    ] {
        let daemon = XRayDaemon::start();
        daemon.set_rules(&[rule("Good", 1, 1.0, 0)]);
        let program = setup(&daemon, OFTEN).start();
        wait_for_rules(&program);
        daemon.answer_rules_with([answer.clone()]);
        let asked = daemon.questions(RULES).len();
        daemon.wait_for_questions(RULES, asked + 3, SOON);
        let says = reason_for(&program, &home(&program));
        assert!(says.contains("rule Good (from X-Ray)"), "{}: {says}", shown(&answer));
    }
}

#[test]
fn an_answer_to_a_report_that_makes_no_sense_harms_nothing() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Cruddur", 1, 1.0, 0)]);
    let program = setup(&daemon, ONCE).start();
    wait_for_rules(&program);
    for answer in [
        Reply::text(200, "application/json", "["),
        Reply::json(200, &json!({ "SamplingTargetDocuments": 7, "LastRuleModification": "now" })),
        Reply::json(200, &json!({ "SamplingTargetDocuments": [7, "x", null, {}, { "RuleName": 7 }] })),
        Reply::json(200, &json!({ "SamplingTargetDocuments": [{ "RuleName": "Cruddur", "ReservoirQuota": -1 }] })),
        Reply::json(200, &json!({ "SamplingTargetDocuments": [{ "RuleName": "Unknown", "FixedRate": 0.0 }] })),
        Reply::json(200, &json!({ "SamplingTargetDocuments": [{ "RuleName": "Cruddur", "Interval": u64::MAX }] })),
        Reply::Garbage,
        Reply::Reset,
        Reply::json(500, &json!({})),
    ] {
        daemon.answer_targets_with(answer.clone());
        let reports = daemon.questions(TARGETS).len();
        let again = wait_until(SOON, || {
            assert!(reason_for(&program, &home(&program)).starts_with("sampled: rule Cruddur (from X-Ray), drew "));
            daemon.questions(TARGETS).len() >= reports + 2
        });
        assert!(again, "no report any more after {}", shown(&answer));
    }
    daemon.set_targets(&[target("Cruddur", 0.0, None, None)], now());
    ask_until(&program, |reason| reason.starts_with("not sampled: rule Cruddur (from X-Ray)"));
    assert!(!program.terminate().stderr.contains("panicked"));
}

#[test]
fn a_daemon_that_hangs_delays_no_request() {
    let daemon = XRayDaemon::start();
    daemon.answer_rules_with([Reply::Hang]);
    let program = setup(&daemon, OFTEN).start();
    daemon.wait_for_questions(RULES, 1, SOON);
    let mut client = Client::connect(program.addr());
    let began = std::time::Instant::now();
    (0..50).for_each(|_| assert_eq!(client.get(HOME).status, 200));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let exit = program.terminate();
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stderr);
    assert!(exit.took < Duration::from_secs(6), "{:?}", exit.took);
}

#[test]
fn a_caller_that_asks_is_told_the_decision() {
    for (rate, decision) in [(0.0, "Sampled=0"), (1.0, "Sampled=1")] {
        let daemon = XRayDaemon::start();
        daemon.set_rules(&[rule("Cruddur", 1, rate, 0)]);
        let program = setup(&daemon, ONCE).start();
        wait_for_rules(&program);
        let mut client = Client::connect(program.addr());
        let header = format!("Root={ROOT};Sampled=?");
        let answer = client.request("GET", HOME, &[("X-Amzn-Trace-Id", &header)], b"");
        assert_eq!(answer.header("x-amzn-trace-id"), Some(format!("Root={ROOT};{decision}").as_str()));
        let says = reason_for(&program, &answer);
        assert_eq!(says.starts_with("sampled: rule Cruddur (from X-Ray)"), rate > 0.0, "{says}");
    }
}

#[test]
fn the_callers_decision_beats_every_rule() {
    for rate in [0.0, 1.0] {
        let daemon = XRayDaemon::start();
        daemon.set_rules(&[rule("Cruddur", 1, rate, 0)]);
        let program = setup(&daemon, ONCE).start();
        wait_for_rules(&program);
        let mut client = Client::connect(program.addr());
        for (number, sampled, says) in
            [(1, "1", "sampled: X-Amzn-Trace-Id says so"), (2, "0", "not sampled: X-Amzn-Trace-Id says so")]
        {
            let header = format!("Root=1-5b8efff7-{number:024x};Sampled={sampled}");
            let answer = client.request("GET", HOME, &[("X-Amzn-Trace-Id", &header)], b"");
            assert_eq!(reason_for(&program, &answer), says);
        }
        let exit = program.terminate();
        let documents = daemon.documents();
        let [document] = &documents[..] else { panic!("{} documents: {}", documents.len(), exit.stderr) };
        assert_eq!(document["aws"]["xray"].get("sampling_rule_name"), None, "no rule took it: {document:#}");
    }
}

#[test]
fn rules_outlive_a_daemon_that_dies_and_its_line_does_not_say_otherwise() {
    let daemon = XRayDaemon::start();
    daemon.set_rules(&[rule("Cruddur", 1, 1.0, 0)]);
    let program = setup(&daemon, OFTEN).start();
    wait_for_rules(&program);
    let addr = daemon.addr();
    drop(daemon);
    program.wait_for_stderr("connection refused by http://");
    assert!(reason_for(&program, &home(&program)).contains("rule Cruddur (from X-Ray)"));

    let daemon = XRayDaemon::start_on(addr);
    daemon.set_rules(&[rule("Returned", 1, 1.0, 0)]);
    ask_until(&program, |reason| reason.contains("rule Returned (from X-Ray)"));
    let exit = program.terminate();
    let lines: Vec<_> =
        warnings(&exit.stderr).into_iter().filter(|line| line.contains("connection refused by http://")).collect();
    let [line] = lines[..] else { panic!("not one line: {lines:#?}") };
    assert!(!line.contains("requests are sampled by the local rule"), "they are not: {line}");
}

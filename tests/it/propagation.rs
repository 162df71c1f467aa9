//! Trace context through the real program: the caller's context is read exactly as specified, and
//! every outgoing call and response has our own.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Collector, Program, SOON, Setup, attribute};

const HOME: &str = "/api/activities/home";
const TRACE: &str = "4efaaf4d1e8720b39541901950019ee5";
const XRAY_TRACE: &str = "1-4efaaf4d-1e8720b39541901950019ee5";
const SPAN: &str = "53995c3f42cd8ad8";
const OTHER_TRACE: &str = "5b8efff798038103d269b633813fc60c";

fn setup(collector: &Collector) -> Setup {
    Program::setup()
        .toml("[console]\nenabled = false\n[honeycomb]\nenabled = true\n")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
}

fn home(client: &mut Client, headers: &[(&str, &str)]) -> Answer {
    let answer = client.request("GET", HOME, headers, b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// The four fields of the `traceparent` of a response, after a check of their form.
#[track_caller]
fn traceparent(answer: &Answer) -> [String; 4] {
    let value = answer.header("traceparent").unwrap_or_else(|| panic!("no traceparent: {answer:?}"));
    let fields: Vec<_> = value.split('-').map(ToOwned::to_owned).collect();
    let fields: [String; 4] = fields.try_into().unwrap_or_else(|_| panic!("not four fields: {value}"));
    assert_eq!(fields.each_ref().map(String::len), [2, 32, 16, 2], "{value}");
    assert!(
        fields.iter().all(|field| field.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))),
        "{value}"
    );
    fields
}

fn listed(program: &Program, trace_id: &str) -> Value {
    let list = program.get("/telemetry/traces").json();
    let traces = list["traces"].as_array().unwrap_or_else(|| panic!("no list: {list:#}"));
    traces
        .iter()
        .find(|trace| trace["trace_id"] == trace_id)
        .cloned()
        .unwrap_or_else(|| panic!("{trace_id} is not in {list:#}"))
}

/// The SERVER span of this trace at the collector.
fn delivered(collector: &Collector, trace_id: &str) -> Value {
    let is_it = |span: &Value| span["traceId"] == trace_id && span["kind"] == 2;
    let requests =
        collector.wait_for(|requests| requests.iter().any(|request| request.spans().iter().any(is_it)), SOON);
    requests.iter().flat_map(|request| request.spans()).find(is_it).expect("it is there")
}

#[test]
fn a_request_without_context_begins_a_trace_that_has_one_id_for_everybody() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let (first, second) = (home(&mut client, &[]), home(&mut client, &[]));
    let [version, trace_id, span_id, flags] = traceparent(&first);
    assert_eq!((version.as_str(), flags.as_str()), ("00", "03"));
    let root = format!("Root=1-{}-{}", &trace_id[..8], &trace_id[8..]);
    assert_eq!(first.header("x-amzn-trace-id").and_then(|value| value.split(';').next()), Some(root.as_str()));
    assert_ne!(traceparent(&second)[1], trace_id);
    assert_ne!(traceparent(&second)[2], span_id);
    // The first four bytes are the second in which the trace began, as X-Ray requires.
    let began = u64::from_str_radix(&trace_id[..8], 16).expect("hex");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_secs();
    assert!(now.abs_diff(began) < 60, "{began} is not {now}");
    program.wait_for_stderr(&format!("trace_id={trace_id} span_id={span_id}"));
}

#[test]
fn the_callers_traceparent_is_joined() {
    let collector = Collector::ok();
    let program = setup(&collector).start();
    let mut client = Client::connect(program.addr());
    for (trace, sent, answered, otlp_flags) in [(TRACE, "01", "01", 0x301), (OTHER_TRACE, "03", "03", 0x303)] {
        let answer = home(
            &mut client,
            &[("traceparent", &format!("00-{trace}-{SPAN}-{sent}")), ("tracestate", "congo=t61,rojo=1")],
        );
        let [_, trace_id, span_id, flags] = traceparent(&answer);
        assert_eq!((trace_id.as_str(), flags.as_str()), (trace, answered));
        assert_ne!(span_id, SPAN);
        let root = answer.header("x-amzn-trace-id").and_then(|value| value.split(';').next());
        assert_eq!(root, Some(format!("Root=1-{}-{}", &trace[..8], &trace[8..]).as_str()));

        let server = delivered(&collector, trace);
        assert_eq!(server["parentSpanId"], SPAN);
        assert_eq!(server["spanId"], span_id);
        assert_eq!(server["traceState"], "congo=t61,rojo=1");
        assert_eq!(server["flags"], otlp_flags);
    }
}

#[test]
fn the_callers_x_amzn_trace_id_is_joined() {
    let collector = Collector::ok();
    let program = setup(&collector).start();
    let mut client = Client::connect(program.addr());
    let answer = home(&mut client, &[("X-Amzn-Trace-Id", &format!("Root={XRAY_TRACE};Parent={SPAN};Sampled=1"))]);
    assert_eq!(traceparent(&answer)[1], TRACE);
    let root = answer.header("x-amzn-trace-id").and_then(|value| value.split(';').next());
    assert_eq!(root, Some(format!("Root={XRAY_TRACE}").as_str()));
    assert_eq!(delivered(&collector, TRACE)["parentSpanId"], SPAN);

    // A load balancer begins traces without having a span.
    let other = "Root=1-5b8efff7-98038103d269b633813fc60c";
    assert_eq!(traceparent(&home(&mut client, &[("X-Amzn-Trace-Id", other)]))[1], OTHER_TRACE);
    assert_eq!(delivered(&collector, OTHER_TRACE).get("parentSpanId"), None);
}

#[test]
fn a_caller_that_asks_for_the_decision_is_told() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let answer = home(&mut client, &[("X-Amzn-Trace-Id", &format!("Root={XRAY_TRACE};Sampled=?"))]);
    assert_eq!(answer.header("x-amzn-trace-id"), Some(format!("Root={XRAY_TRACE};Sampled=1").as_str()));
}

#[test]
fn context_that_breaks_a_rule_is_no_context() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let good = format!("00-{TRACE}-{SPAN}-01");
    let bad = [
        vec![("traceparent", format!("00-{}-{SPAN}-01", TRACE.to_uppercase()))],
        vec![("traceparent", format!("ff-{TRACE}-{SPAN}-01"))],
        vec![("traceparent", format!("00-{TRACE}-0000000000000000-01"))],
        vec![("traceparent", format!("{good}-more"))],
        vec![("traceparent", String::new())],
        vec![("traceparent", good.clone()), ("Traceparent", good.clone())],
        vec![("X-Amzn-Trace-Id", "Root=zzz".to_owned())],
        vec![("X-Amzn-Trace-Id", format!("Root=1-{TRACE}"))],
    ];
    for headers in bad {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let [_, trace_id, _, flags] = traceparent(&home(&mut client, &headers));
        assert_ne!(trace_id, TRACE, "{headers:?}");
        assert_eq!(flags, "03", "a trace of our own: {headers:?}");
    }
    // Blanks around the value are allowed, and names are case-insensitive.
    let answer = home(&mut client, &[("TraceParent", &format!(" \t{good} "))]);
    assert_eq!(traceparent(&answer)[1], TRACE);
}

#[test]
fn of_two_contexts_the_first_of_the_propagators_wins() {
    let headers = [
        ("traceparent", format!("00-{TRACE}-{SPAN}-01")),
        ("X-Amzn-Trace-Id", "Root=1-5b8efff7-98038103d269b633813fc60c;Sampled=1".to_owned()),
    ];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    for (propagators, expected) in
        [("", TRACE), ("tracecontext,xray", TRACE), ("xray,tracecontext", OTHER_TRACE), ("xray", OTHER_TRACE)]
    {
        let program = Program::setup().env("OTEL_PROPAGATORS", propagators).start();
        let answer = home(&mut Client::connect(program.addr()), &headers);
        assert_eq!(traceparent(&answer)[1], expected, "{propagators}");
    }
}

#[test]
fn an_unsampled_request_keeps_its_id_and_is_listed_with_the_reason() {
    let collector = Collector::ok();
    let program = setup(&collector).start();
    let mut client = Client::connect(program.addr());
    for (trace, header, value) in [
        (TRACE, "traceparent", format!("00-{TRACE}-{SPAN}-00")),
        (OTHER_TRACE, "X-Amzn-Trace-Id", "Root=1-5b8efff7-98038103d269b633813fc60c;Sampled=0".to_owned()),
    ] {
        let answer = home(&mut client, &[(header, &value)]);
        let [_, trace_id, _, flags] = traceparent(&answer);
        assert_eq!((trace_id.as_str(), flags.as_str()), (trace, "00"));
        let entry = listed(&program, trace);
        assert_eq!(entry["sampled"], false, "{entry:#}");
        assert_eq!(entry["sampling"], "not sampled: the caller decided so", "{entry:#}");
        assert_eq!(entry["status"], 200);
        program.wait_for_stderr(&format!("trace_id={trace}"));
    }
    // A sampled request follows. Its trace is the only one that arrives.
    let sampled = traceparent(&home(&mut client, &[]))[1].clone();
    delivered(&collector, &sampled);
    assert!(collector.spans().iter().all(|span| span["traceId"] == sampled.as_str()));
    let honeycomb = program.wait_for_backend("honeycomb", |honeycomb| honeycomb["delivered"] == 2);
    assert_eq!(honeycomb["sampled_out"], 4, "{honeycomb:#}");
}

#[test]
fn a_lot_that_was_drawn_is_shown() {
    for (name, ratio, sampled, flags) in [
        ("traceidratio", "0", false, "02"),
        ("parentbased_traceidratio", "1", true, "03"),
        ("always_off", "", false, "02"),
    ] {
        let program = Program::setup().env("OTEL_TRACES_SAMPLER", name).env("OTEL_TRACES_SAMPLER_ARG", ratio).start();
        let answer = program.get(HOME);
        assert_eq!(traceparent(&answer)[3], flags, "{name}");
        let entry = listed(&program, answer.trace_id());
        assert_eq!(entry["sampled"], sampled, "{entry:#}");
        let reason = entry["sampling"].as_str().unwrap_or_default();
        assert!(reason.contains(if name == "always_off" { "sampler" } else { "drew" }), "{name}: {reason}");
    }
}

#[test]
fn health_and_telemetry_are_never_traced() {
    let collector = Collector::ok();
    let program = setup(&collector).start();
    let mut client = Client::connect(program.addr());
    let context = format!("00-{TRACE}-{SPAN}-01");
    for path in ["/health", "/telemetry/status", "/telemetry/traces", "/telemetry/traces/1"] {
        let answer = client.request("GET", path, &[("traceparent", &context)], b"");
        assert_eq!((answer.header("traceparent"), answer.header("x-amzn-trace-id")), (None, None), "{path}");
    }
    let traced = home(&mut client, &[]).trace_id().to_owned();
    delivered(&collector, &traced);
    let list = program.get("/telemetry/traces").json();
    assert_eq!(list["traces"].as_array().map(Vec::len), Some(1), "{list:#}");
    assert!(collector.spans().iter().all(|span| span["traceId"] == traced.as_str()));
}

#[test]
fn errors_and_preflights_are_traced_under_their_route_or_none() {
    let collector = Collector::ok();
    let program = setup(&collector).start();
    let mut client = Client::connect(program.addr());
    for (method, path, name, route) in [
        ("GET", "/api/activities/@andrewbrown", "GET /api/activities/@{handle}", Some("/api/activities/@{handle}")),
        ("GET", "/api/nothing/here", "GET", None),
        ("OPTIONS", "/api/activities", "OPTIONS /api/activities", Some("/api/activities")),
    ] {
        let answer = client.request(method, path, &[], b"");
        let server = delivered(&collector, answer.trace_id());
        assert_eq!(server["name"], name, "{method} {path}");
        assert_eq!(attribute(&server, "http.route"), route.map(|route| json!(route)).as_ref());
        assert_eq!(attribute(&server, "http.response.status_code"), Some(&json!(answer.status.to_string())));
        assert_eq!(server["status"], json!({}), "{method} {path}: no error of ours");
    }
}

#[test]
fn the_last_two_hundred_traces_are_listed_newest_first() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let made: Vec<_> = (0..205).map(|_| home(&mut client, &[]).trace_id().to_owned()).collect();
    let list = client.get("/telemetry/traces").json();
    let traces = list["traces"].as_array().expect("an array");
    let ids: Vec<_> = traces.iter().map(|trace| trace["trace_id"].as_str().expect("an id")).collect();
    let expected: Vec<_> = made.iter().rev().take(200).map(String::as_str).collect();
    assert_eq!(ids, expected);

    let newest = &traces[0];
    let id = &made[204];
    assert_eq!(newest["xray_trace_id"], format!("1-{}-{}", &id[..8], &id[8..]));
    for (key, value) in [("name", json!("GET /api/activities/home")), ("method", json!("GET")), ("path", json!(HOME))] {
        assert_eq!(newest[key], value, "{newest:#}");
    }
    assert_eq!((&newest["status"], &newest["spans"], &newest["sampled"]), (&json!(200), &json!(2), &json!(true)));
    assert!(newest["sampling"].as_str().is_some_and(|reason| reason.starts_with("sampled: ")), "{newest:#}");
    assert!(newest["duration_ms"].is_number() && newest["started_at"].is_string(), "{newest:#}");
}

#[test]
fn a_trace_shows_all_its_requests_and_their_spans() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let context = format!("00-{TRACE}-{SPAN}-01");
    let answers = [home(&mut client, &[("traceparent", &context)]), home(&mut client, &[("traceparent", &context)])];
    let trace = client.get(&format!("/telemetry/traces/{TRACE}")).json();
    assert_eq!((&trace["trace_id"], &trace["xray_trace_id"]), (&json!(TRACE), &json!(XRAY_TRACE)));
    let requests = trace["requests"].as_array().expect("an array");
    assert_eq!(requests.len(), 2, "{trace:#}");
    for answer in &answers {
        let server_id = traceparent(answer)[2].clone();
        let has_it = |request: &&Value| request["spans"][0]["span_id"] == server_id.as_str();
        let request = requests.iter().find(has_it).unwrap_or_else(|| panic!("{server_id} is not in {trace:#}"));
        assert_eq!((&request["method"], &request["status"]), (&json!("GET"), &json!(200)));
        let spans = request["spans"].as_array().expect("an array");
        let [server, inner] = &spans[..] else { panic!("{} spans", spans.len()) };
        assert_eq!(server["parent_span_id"], SPAN);
        assert_eq!(inner["parent_span_id"], server_id.as_str());
        assert_eq!((&inner["scope"], &inner["name"]), (&json!("home.activities"), &json!("home-activities-mock-data")));
        assert_eq!(inner["attributes"]["app.result_length"], 3);
        assert!(inner["events"].is_array() && inner["duration_ms"].is_number() && inner["started_at"].is_string());
    }
    for unknown in [OTHER_TRACE, "zzz", ""] {
        assert_eq!(client.get(&format!("/telemetry/traces/{unknown}")).status, 404, "{unknown:?}");
    }
}

#[test]
fn a_failed_request_shows_its_exception() {
    let program = Program::start();
    let answer = program.get("/api/fail");
    let trace = program.get(&format!("/telemetry/traces/{}", answer.trace_id())).json();
    let spans = trace["requests"][0]["spans"].as_array().unwrap_or_else(|| panic!("no spans: {trace:#}"));
    let events: Vec<_> = spans.iter().filter_map(|span| span["events"].as_array()).flatten().collect();
    let [event] = events[..] else { panic!("{} events: {trace:#}", events.len()) };
    assert_eq!(event["name"], "exception");
    assert!(event["attributes"]["exception.message"].is_string(), "{event:#}");
}

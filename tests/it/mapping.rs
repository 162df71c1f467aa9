//! Checks docs/mapping.md against the bytes that are sent. The real program serves a request for
//! each heading of the table and sends to three receivers. Each cell is looked up in what they
//! received. A span that no request produces is encoded by the same encoders.

mod table;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cruddur::backends::plans;
use cruddur::logging::LogLine;
use cruddur::settings::{Env, Findings, Settings, Sources};
use cruddur::trace::context::TraceFlags;
use cruddur::trace::current::Current;
use cruddur::trace::id::{SpanId, TraceId};
use cruddur::trace::sampler::{Decision, Reason};
use cruddur::trace::span::{Attribute, SpanData, SpanKind};
use cruddur::trace::{FinishedTrace, Scope, Value as Fact};
use serde_json::{Value, json};

use self::table::{Claim, Group, Names, Roots, SERVER, Sent, leaves, parse};
use crate::support::{Client, CloudWatch, Collector, Program, Reply, SOON, Setup, XRayDaemon};

const CALLER: &str = "00-63f2db281e8720b39541901950019ee5-00f067aa0ba902b7-03";
/// Heading of the span that no request produces.
const MADE_UP: &str = "A made-up span with 60 attributes, and a log line with key values";
const SETTINGS: &str = "\
[resource]
\"deployment.environment.name\" = \"development\"
[console]
enabled = false
[honeycomb]
enabled = true
schedule_delay = 20
[xray]
enabled = true
schedule_delay = 20
[cloudwatch]
enabled = true
schedule_delay = 20
";

/// What was sent for one request.
struct Delivered {
    /// OTLP: each span with its scope and its resource.
    spans: Vec<Value>,
    /// X-Ray: the segment.
    segment: Value,
    /// CloudWatch: for each log line, the request, the event and the line itself.
    lines: Vec<Roots>,
}

/// The three receivers.
struct Receivers {
    collector: Collector,
    daemon: XRayDaemon,
    cloudwatch: CloudWatch,
}

/// A group of the table, and what the columns have of its span.
type Checked = (Group, [Sent; 3]);

#[test]
fn each_cell_of_the_mapping_is_what_the_backends_send() {
    let table = table();
    let named: BTreeSet<&str> = table.iter().map(|(group, _)| group.request.as_str()).collect();
    assert_eq!(named, delivered().keys().copied().collect(), "docs/mapping.md has these requests, and this test those");
    let problems: Vec<_> = problems(&table).collect();
    assert!(problems.is_empty(), "{} rows are wrong:\n  {}", problems.len(), problems.join("\n  "));
}

#[test]
fn the_mapping_has_a_row_for_each_field_that_the_backends_send() {
    let table = table();
    // One row is enough for a field, whether of the segment or of a subsegment.
    let spelling = |path: &str| path.replace("subsegment", "segment");
    let (mut with_value, mut absent) = (BTreeSet::new(), BTreeSet::new());
    let cells = table.iter().flat_map(|(group, _)| &group.rows).flat_map(|row| &row.cells);
    for claim in cells.flat_map(|cell| &cell.claims) {
        let fields = if claim.value.is_some() { &mut with_value } else { &mut absent };
        fields.insert(spelling(&claim.path));
    }
    let mut sent = Vec::new();
    for (group, columns) in table.iter().filter(|(group, _)| group.request != MADE_UP) {
        let own = if group.kind == SERVER { "segment" } else { "subsegment" };
        for (root, json) in columns.iter().flat_map(|column| &column.candidates).flatten() {
            if ["span", "scope", "resource", "line", own].contains(&root.as_str()) {
                leaves(root, json, &mut sent);
            }
        }
    }
    let sent: BTreeSet<String> = sent.iter().map(|path| spelling(path)).collect();
    let without_row: Vec<_> = sent.difference(&with_value).collect();
    assert!(without_row.is_empty(), "docs/mapping.md has no row for {without_row:#?}; next: add one");
    // A misspelt field is absent too.
    let misspelt: Vec<_> = absent.difference(&with_value).collect();
    assert!(misspelt.is_empty(), "docs/mapping.md never has a value for {misspelt:#?}; next: check the spelling");
}

/// Checks the first test: it must fail when a field has another value or name, or is absent.
#[test]
fn any_change_of_a_field_in_the_mapping_is_noticed() {
    let table = table();
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for request in delivered().keys() {
        let mut table: Vec<Checked> = table.iter().filter(|(group, _)| group.request == *request).cloned().collect();
        for (group, row, column) in places(&table) {
            let claims = table[group].0.rows[row].cells[column].claims.clone();
            for (at, claim) in claims.iter().enumerate() {
                for changed in changes(claim) {
                    let name = format!("{}: {changed:?}", table[group].0.rows[row].name());
                    table[group].0.rows[row].cells[column].claims[at] = changed;
                    tried += 1;
                    if problems(&table).next().is_none() {
                        unnoticed.push(name);
                    }
                }
                table[group].0.rows[row].cells[column].claims[at] = claim.clone();
            }
        }
    }
    assert!(unnoticed.is_empty(), "{} of {tried} changes make no difference: {unnoticed:#?}", unnoticed.len());
    assert!(tried > 500, "only {tried} changes");
}

/// The table of docs/mapping.md, each group with what was sent.
fn table() -> Vec<Checked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mapping.md");
    let text = fs::read_to_string(path).expect("docs/mapping.md is there");
    let groups = parse(&text).unwrap_or_else(|problem| panic!("{problem}"));
    let with_columns = |group: Group| {
        let request = delivered().get(group.request.as_str());
        let columns = request.and_then(|delivered| delivered.columns(&group));
        let columns = columns.unwrap_or_else(|| panic!("no such span was sent: {}, {}", group.request, group.kind));
        (group, columns)
    };
    groups.into_iter().map(with_columns).collect()
}

/// The places of all cells: group, row, column.
fn places(table: &[Checked]) -> Vec<(usize, usize, usize)> {
    let rows = table.iter().enumerate().flat_map(|(at, (group, _))| (0..group.rows.len()).map(move |row| (at, row)));
    rows.flat_map(|(group, row)| (0..3).map(move |column| (group, row, column))).collect()
}

/// Wrong versions of a claim.
fn changes(claim: &Claim) -> Vec<Claim> {
    let with = |path: &str, value: Option<&str>| Claim { path: path.to_owned(), value: value.map(str::to_owned) };
    let Claim { path, value } = claim;
    match value {
        None => vec![with(path, Some("\"...\""))],
        value => {
            vec![with(path, Some("\"something else\"")), with(path, None), with(&format!("{path}x"), value.as_deref())]
        }
    }
}

/// All rows that are wrong.
fn problems(table: &[Checked]) -> impl Iterator<Item = String> {
    // A name stands for the same text in all groups of a request.
    let mut names: BTreeMap<&str, Names> = BTreeMap::new();
    let rows = table.iter().flat_map(|(group, columns)| group.rows.iter().map(move |row| (group, row, columns)));
    rows.filter_map(move |(group, row, columns)| row.check(columns, names.entry(&group.request).or_default()).err())
}

impl Delivered {
    /// What the columns have of the span that a group is about.
    fn columns(&self, group: &Group) -> Option<[Sent; 3]> {
        let mut span = self.spans.iter().filter(|span| span["kind"] == group.kind).nth(group.place)?.clone();
        let (mut segment, mut subsegment) = (self.segment.clone(), find_segment(&self.segment, &span["spanId"])?);
        for document in [&mut segment, &mut subsegment] {
            document.as_object_mut()?.remove("subsegments");
        }
        let [scope, resource] = ["scope", "resource"].map(|part| span.as_object_mut()?.remove(part));
        let otlp = roots([("span", span), ("scope", scope?), ("resource", resource?)]);
        let xray = roots([("segment", segment), ("subsegment", subsegment)]);
        let lines = self.lines.iter().map(|line| line["line"].clone()).collect();
        Some([
            Sent { candidates: vec![otlp], everything: self.spans.clone() },
            Sent { candidates: vec![xray], everything: vec![self.segment.clone()] },
            Sent { candidates: self.lines.clone(), everything: lines },
        ])
    }
}

fn roots<const N: usize>(roots: [(&str, Value); N]) -> Roots {
    roots.into_iter().map(|(name, json)| (name.to_owned(), json)).collect()
}

fn find_segment(document: &Value, id: &Value) -> Option<Value> {
    if document["id"] == *id {
        return Some(document.clone());
    }
    document["subsegments"].as_array()?.iter().find_map(|below| find_segment(below, id))
}

/// What was sent for each request of the table. The requests are made once for all tests.
fn delivered() -> &'static BTreeMap<&'static str, Delivered> {
    static DELIVERED: OnceLock<BTreeMap<&str, Delivered>> = OnceLock::new();
    DELIVERED.get_or_init(serve_all)
}

fn serve_all() -> BTreeMap<&'static str, Delivered> {
    let receivers =
        Receivers { collector: Collector::ok(), daemon: XRayDaemon::start(), cloudwatch: CloudWatch::start() };
    receivers.daemon.set_rules(&[json!({
        "RuleName": "Cruddur", "ResourceARN": "*", "Priority": 1, "FixedRate": 1.0, "ReservoirSize": 0, "Version": 1,
        "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*", "Attributes": {},
    })]);
    let callee = Collector::start([
        Reply::json(200, &json!([])),
        Reply::Reset,
        Reply::json(200, &json!([])),
        Reply::json(429, &json!({})),
        Reply::json(503, &json!({})),
    ]);
    let caller = [("X-Forwarded-For", "203.0.113.7"), ("traceparent", CALLER), ("tracestate", "congo=t61rcWkgMzE")];
    let is_json = [("Content-Type", "application/json")];
    let setup = receivers.setup().env("NOTIFICATIONS_URL", callee.url()).env("NOTIFICATIONS_TIMEOUT", 4000);
    let mut delivered = receivers.serve(
        setup,
        &[
            ("`GET /api/activities/home?page=2` through a proxy, with a traced caller", &caller),
            ("`GET /api/activities/@andrewbrown`", &[]),
            ("`GET /api/activities/notifications` from another instance", &[]),
            ("`GET /api/activities/notifications` over a connection that breaks", &[]),
            ("`GET /api/activities/notifications`, answered 429", &[]),
            ("`GET /api/activities/notifications`, answered 503", &[]),
            ("`GET /api/activities/nobody`", &[]),
            ("`POST /api/activities` with an empty message", &is_json),
            ("`BREW /api/activities/home`", &[]),
            ("`GET /api/fail?how=error`", &[]),
        ],
    );
    for request in [
        "`GET /api/fail?how=error` with `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=4`",
        "`GET /api/fail?how=error` with `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=2`",
        "`GET /api/fail?how=error` with `OTEL_SPAN_EVENT_COUNT_LIMIT=0`",
    ] {
        let (name, value) = request.split('`').nth(3).and_then(|set| set.split_once('=')).expect("NAME=value");
        delivered.extend(receivers.serve(receivers.setup().env(name, value), &[(request, &[])]));
    }
    delivered.insert(MADE_UP, made_up());
    delivered
}

impl Receivers {
    fn setup(&self) -> Setup {
        Program::setup()
            .toml(SETTINGS)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.url())
            .env("AWS_XRAY_DAEMON_ADDRESS", self.daemon.addr())
            .env("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", self.cloudwatch.url())
            .env("AWS_REGION", CloudWatch::REGION)
            .env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET)
    }

    /// Starts a program and makes a request for each heading, with these headers. The request is
    /// in the first quotes of the heading.
    fn serve(&self, setup: Setup, requests: &[(&'static str, &[(&str, &str)])]) -> BTreeMap<&'static str, Delivered> {
        let program = setup.start();
        let has_rules = |xray: &Value| xray["sampling"].as_str().is_some_and(|it| it.starts_with("rules from X-Ray"));
        program.wait_for_backend("xray", has_rules);
        let mut client = Client::connect(program.addr());
        let answers = requests.iter().map(|(heading, headers)| {
            let request = heading.split('`').nth(1).and_then(|request| request.split_once(' '));
            let (method, target) = request.expect("a method and a target");
            let headers = [&[("Host", "localhost:4567"), ("User-Agent", "curl/8.5.0")], *headers].concat();
            let body = if method == "POST" { r#"{"message":"","ttl":"7-days"}"# } else { "" };
            (*heading, client.request(method, target, &headers, body.as_bytes()).trace_id().to_owned())
        });
        let answers: Vec<_> = answers.collect();
        answers.into_iter().map(|(heading, trace_id)| (heading, self.delivered(&trace_id))).collect()
    }

    /// Waits until everything about a request was received. Its access line comes last.
    fn delivered(&self, trace_id: &str) -> Delivered {
        let of_trace = |span: &Value| span["traceId"] == trace_id;
        self.collector.wait_for(|requests| requests.iter().flat_map(|it| it.spans()).any(|it| of_trace(&it)), SOON);
        let segment = self.daemon.wait_for_trace(trace_id, SOON);
        let is_access = |line: &Roots| line["line"]["target"] == "access";
        let calls = self.cloudwatch.wait_for_calls(
            |calls| calls.iter().flat_map(|call| lines(&call.body, trace_id)).any(|line| is_access(&line)),
            SOON,
        );
        let spans = self.collector.spans().into_iter().filter(of_trace).collect();
        Delivered { spans, segment, lines: calls.iter().flat_map(|call| lines(&call.body, trace_id)).collect() }
    }
}

/// The lines of a request in the body of a PutLogEvents.
fn lines(body: &Value, trace_id: &str) -> Vec<Roots> {
    let line = |event: &Value| {
        let line: Value = serde_json::from_str(event["message"].as_str()?).ok()?;
        (line["trace_id"] == trace_id)
            .then(|| roots([("request", body.clone()), ("event", event.clone()), ("line", line)]))
    };
    body["logEvents"].as_array().into_iter().flatten().filter_map(line).collect()
}

/// Encodes a trace and a log line that no request produces, with the encoders of the program.
fn made_up() -> Delivered {
    let sources = Sources::from_text(SETTINGS, Env::from([])).expect("TOML");
    let (shared, _) = Settings::read(&sources, None, "instance", &mut Findings::default()).expect("valid settings");
    let (trace_id, id) = (TraceId::from_hex(&"7".repeat(32)), SpanId::from_hex(&"7".repeat(16)));
    let (trace_id, id) = (trace_id.expect("32 digits"), id.expect("16 digits"));
    let flags = TraceFlags { sampled: true, random: true };
    let mut span = SpanData::new(id, Scope::named("made.up"), Cow::Borrowed("made-up"), SpanKind::Server, 0);
    span.attributes = vec![
        Attribute::new("app.text", "x"),
        Attribute::new("app.flag", true),
        Attribute::new("app.ratio", 0.5),
        Attribute::new("app.map", Fact::Map(vec![Attribute::new("k", "v")])),
    ];
    // Three of the four are annotations, so the annotation `app.n50` is the last of 50.
    span.attributes.extend((4_i64..=59).map(|n| Attribute::new(format!("app.n{n}"), n)));
    let trace = Arc::new(FinishedTrace {
        trace_id,
        trace_state: String::new(),
        flags,
        remote_parent: false,
        decision: Decision { sampled: true, reason: Reason::Always },
        backend_decisions: vec![],
        spans: vec![span],
    });
    let line = Arc::new(LogLine {
        time: 0,
        level: log::Level::Info,
        target: "made-up".to_owned(),
        message: "made up".to_owned(),
        key_values: vec![("user_id".to_owned(), "7".to_owned())],
        span: Some(Current { trace_id, span_id: id, flags }),
    });
    let sent = |name: &str| {
        let plan = plans(&sources, &shared).expect("valid settings").into_iter().find(|plan| plan.name == name);
        let payloads = plan.expect("a backend").encoding.encode_request(&trace, std::slice::from_ref(&line));
        let text = String::from_utf8(payloads[0].bytes.clone()).expect("it is text");
        // A datagram has a line before the document.
        let json = text.lines().last().expect("it is not empty");
        serde_json::from_str::<Value>(json).expect("it is JSON")
    };
    let mut span = sent("honeycomb")["resourceSpans"][0]["scopeSpans"][0]["spans"][0].take();
    (span["scope"], span["resource"]) = (json!({}), json!({}));
    let lines = lines(&sent("cloudwatch"), &trace_id.to_string());
    Delivered { spans: vec![span], segment: sent("xray"), lines }
}

//! Requests, as a child of `http`: every request gets a response that is well formed, one line in the
//! access log, and no data that it may not see.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Value as Json, json};
use tiny_http::{HTTPVersion, Header, Method, TestRequest};

use super::body::BodyState;
use super::cors::Cors;
use super::head::Head;
use super::render::{AccessLog, ResponseRenderer};
use super::response::{Failure, Response};
use super::routes::{RequestContext, RouteMatch, find};
use super::semantics::{describe_request, describe_response, span_name};
use crate::activities::{Activity, App};
use crate::delivery::Pipeline;
use crate::fuzz::trace_context::tracer;
use crate::fuzz::{assert_one_line, first_line};
use crate::page::{Page, ProcessView};
use crate::settings::{Env, Findings, Settings, Sources};
use crate::trace::context::Propagator;
use crate::trace::span::{Scope, Timestamp};
use crate::trace::{Incoming, Tracer};

const SCOPE: Scope = Scope::named("fuzz");
const ZEROS: &str = match str::from_utf8(&[b'0'; 1024]) {
    Ok(text) => text,
    Err(_) => panic!("digits are text"),
};

/// A request as it is sent: request line, headers, empty line, body.
pub(crate) fn requests(input: &[u8]) {
    let (line, mut rest) = first_line(input);
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end_matches('\r').split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or("/"));
    let Ok(method) = Method::from_str(method) else { return };
    let version = HTTPVersion(1, u8::from(words.next() != Some("HTTP/1.0")));
    let mut request = TestRequest::new().with_method(method).with_path(target).with_http_version(version);
    let mut has_length = false;
    loop {
        let (line, after) = first_line(rest);
        rest = after;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        let Some((name, value)) = line.split_once(':') else { break };
        let Ok(header) = Header::from_bytes(name, value.trim()) else { continue };
        // tiny_http makes a request only if a body of the first length is there.
        if header.field.equiv("content-length") {
            match header.value.as_str().parse() {
                Ok(length @ 0..=1024) if !has_length => request = request.with_body(&ZEROS[..length]),
                Ok(0..=1024) => {}
                Ok(_) => continue,
                Err(_) => {}
            }
            has_length = true;
        } else if header.field.equiv("expect") {
            continue;
        }
        request = request.with_header(header);
    }
    let request: tiny_http::Request = request.into();
    let head = Head::read(&request);
    FIXTURES.with(|fixtures| fixtures.each_ref().map(|fixture| respond(&head, rest, fixture)));
}

/// A POST: one line with the route and the content type, then the body.
pub(crate) fn json_bodies(input: &[u8]) {
    let (line, body) = first_line(input);
    let line = String::from_utf8_lossy(line);
    let (path, content_type) = line.split_once(' ').unwrap_or((&line, "application/json"));
    let head = Head { method: "POST", path, version: "1.1", content_type: Some(content_type), ..Head::default() };
    let response = FIXTURES.with(|[fixture, _]| respond(&head, body, fixture));
    if response.status != 200 || !path.starts_with("/api/activities") {
        return;
    }
    // What was written is what was sent.
    let sent: Json = serde_json::from_slice(body).expect("it was accepted");
    let written: Activity = serde_json::from_slice(&response.body).expect("an activity");
    assert_eq!(Some(&*written.message), sent["message"].as_str());
    assert!((1..=1024).contains(&written.message.chars().count()));
}

/// What requests are answered with.
struct Fixture {
    settings: Settings,
    page: Page,
    pipeline: Pipeline,
    tracer: Tracer,
}

thread_local! {
    /// One whose page is for this machine only, and one whose page is for other machines too.
    static FIXTURES: [Fixture; 2] = ["", "[page]\nallow_remote = true\n"].map(|toml| {
        let sources = Sources::from_text(toml, Env::default()).expect("valid settings");
        let (settings, _) = Settings::read(&sources, None, "fuzz", &mut Findings::default()).expect("valid settings");
        let pipeline = Pipeline::start(Vec::new()).expect("no threads are needed");
        let page = Page::new(&settings, Vec::new());
        Fixture { settings, page, pipeline, tracer: tracer(&Propagator::ALL, true) }
    });
}

fn respond(head: &Head<'_>, body: &[u8], fixture: &Fixture) -> Response {
    let Fixture { settings, page, pipeline, tracer } = fixture;
    let target = find(head.method, head.path);
    let incoming =
        Incoming { at: Timestamp::now(), headers: &head.trace, host: head.host, method: head.method, path: head.path };
    let known_method = settings.known_methods.iter().map(String::as_str).find(|method| *method == head.method);
    let trace = tracer.begin(&incoming, SCOPE, span_name(known_method, &target));
    describe_request(&trace, head, known_method, &target);
    let app = App::default();
    let result = match (&head.problem, &target) {
        (Some(problem), _) => Err(problem.clone()),
        // The route that panics on purpose would end the fuzzer.
        (None, RouteMatch::Found(route, parameter)) if route.pattern != "/api/fail" => {
            let process = &ProcessView::default;
            let call = RequestContext { trace: &trace, app: &app, page, pipeline, process, head, parameter, body };
            (route.handler)(&call)
        }
        (None, RouteMatch::Options(route)) => Ok(Response::empty(route.allow())),
        _ => Err(Failure::rejected(404, "nothing")),
    };
    let response = result.unwrap_or_else(|failure| {
        assert!(!matches!(failure, Failure::Internal(_) | Failure::Panicked), "{failure:?}");
        Response::from_failure(&failure, Some(trace.trace_id()))
    });
    describe_response(&trace, &response);
    check_access(head, &target, &response);
    check_line(head, response.status);
    let cors = Cors::new(settings.origins.clone());
    let mut renderer = ResponseRenderer::new(cors);
    check_bytes(renderer.render(head, &response, Some(&trace), BodyState::Read), head, &response);
    response
}

/// Data is for those who ask for this machine by a name that no web page can have.
fn check_access(head: &Head<'_>, target: &RouteMatch<'_>, response: &Response) {
    let is_data = target.route().is_some_and(|route| route.pattern.starts_with("/telemetry/"));
    if !is_data || response.status != 200 || head.method == "OPTIONS" {
        return;
    }
    for host in [head.host, head.forwarded_host].into_iter().flatten() {
        let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let name = port.map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_ascii_lowercase();
        assert!(name == "localhost" || name.parse::<IpAddr>().is_ok(), "data for {host}");
    }
    assert!(!head.is_cross_site && head.origin.is_none_or(|origin| !origin.contains("evil")), "{:?}", head.origin);
}

fn check_line(head: &Head<'_>, status: u16) {
    let mut log = AccessLog::default();
    // Path and query have at most 2,048 characters each, of at most 10 bytes when they are escaped.
    assert_one_line(log.line(head, status), 200 + head.method.len() + 2 * 2048 * 10);
    let query = head.redacted_query().unwrap_or_default();
    for pair in query.split('&').filter(|pair| pair.starts_with("sig=") || pair.starts_with("X-Amz-Signature=")) {
        assert!(pair.ends_with("=REDACTED"), "{query}");
    }
}

/// Status line, headers and body are those of the response, and nothing that a client sent adds a
/// line.
fn check_bytes(bytes: &[u8], head: &Head<'_>, response: &Response) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the end of the head");
    let (lines, body) = (str::from_utf8(&bytes[..end]).expect("text"), &bytes[end + 4..]);
    let mut lines = lines.split("\r\n");
    assert!(lines.next().is_some_and(|line| line.starts_with(&format!("HTTP/1.1 {} ", response.status))));
    let mut length = None;
    let mut names = Vec::new();
    for line in lines {
        assert_one_line(line, 20_000);
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{line:?}");
        assert!(!names.contains(&name), "{name} is there twice");
        names.push(name);
        if name == "Content-Length" {
            length = value.parse::<usize>().ok();
        }
    }
    assert_eq!(length, Some(response.body.len()));
    assert_eq!(body.len(), if head.method == "HEAD" { 0 } else { response.body.len() });
    if response.content_type == "application/json" && !response.body.is_empty() {
        assert!(serde_json::from_slice::<Json>(&response.body).is_ok_and(|json| json != json!(null)));
    }
}

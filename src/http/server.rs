//! The one loop: receive, route, answer, and hand the finished trace on.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use log::Level;
use tiny_http::{Request, StatusCode};

use super::body::{BodyReader, ReceivedRequest, RejectedRequest};
use super::cors::Cors;
use super::head::Head;
use super::listener::{Listener, Next};
use super::response::{Failure, Response};
use super::routes::{RequestContext, RouteMatch, find};
use super::semantics::{describe_answer, describe_request, span_name};
use super::send::{ClientGone, Sender};
use crate::activities::App;
use crate::client::HTTP_SCOPE;
use crate::delivery::Pipeline;
use crate::logging::Capture;
use crate::page::Page;
use crate::trace::id::TraceId;
use crate::trace::{Incoming, RequestTrace, Tracer};

/// The one loop and all that it works with.
pub struct Server {
    listener: Listener,
    service: Service,
    telemetry: Telemetry,
    sender: Sender,
    buffers: RefCell<Buffers>,
    on_wake: OnWake,
}

/// What is served, and to which pages.
pub struct Service {
    /// The application.
    pub app: App,
    /// Which pages may call it.
    pub cors: Cors,
    /// The methods that spans are named after; any other is `_OTHER`.
    pub known_methods: Vec<String>,
}

/// What becomes of a request beside its response: its spans, the backends that get them, and the page that shows them.
pub struct Telemetry {
    /// Begins the trace of each request.
    pub tracer: Tracer,
    /// Delivers finished traces.
    pub pipeline: Pipeline,
    /// Shows them.
    pub page: Page,
}

/// Called between two requests when another thread wakes the loop. It may change the tracer, the backends and the page. It must
/// not wait for anything.
pub type OnWake = Box<dyn FnMut(&mut Telemetry)>;

/// Memory that is used again for every answer.
#[derive(Default)]
struct Buffers {
    answer: Vec<u8>,
    access_line: String,
    date: CachedText,
    minute: CachedText,
}

/// A time as text, formatted again only when the text changes.
#[derive(Default)]
struct CachedText {
    valid_for: i64,
    text: String,
}

/// How long answers that are not finished may take once the program is told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl Server {
    /// A server of `service` that answers on `listener`.
    #[must_use]
    pub fn new(listener: Listener, service: Service, telemetry: Telemetry, on_wake: OnWake) -> Self {
        let (sender, buffers) = (Sender::default(), RefCell::default());
        Self { listener, service, telemetry, sender, buffers, on_wake }
    }

    /// Answers requests until the program is told to stop, and what is left then. Answers when that was.
    ///
    /// # Errors
    ///
    /// No connection can be accepted any more.
    pub fn run(&mut self) -> (Instant, io::Result<()>) {
        let mut bodies = BodyReader::new(self.listener.server());
        let result = loop {
            match self.listener.next() {
                Next::Request(request) => {
                    if let Some(arrived) = bodies.arrived(request) {
                        self.answer(arrived);
                    }
                }
                Next::Wake => (self.on_wake)(&mut self.telemetry),
                Next::Stop => break Ok(()),
                Next::Failed(error) => break Err(error),
            }
            while let Some(arrived) = bodies.ready() {
                self.answer(arrived);
            }
        };
        let stopped = Instant::now();
        self.answer_the_last(&mut bodies, stopped + LAST_ANSWERS);
        (stopped, result)
    }

    /// What is left to deliver when the loop has ended.
    #[must_use]
    pub fn into_pipeline(self) -> Pipeline {
        self.telemetry.pipeline
    }

    fn answer_the_last(&self, bodies: &mut BodyReader, deadline: Instant) {
        while Instant::now() < deadline
            && let Some(request) = self.listener.next_waiting()
        {
            if let Some(arrived) = bodies.arrived(request) {
                self.answer(arrived);
            }
        }
        while (bodies.are_pending() || self.sender.are_pending()) && Instant::now() < deadline {
            match bodies.ready() {
                Some(arrived) => self.answer(arrived),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn answer(&self, ReceivedRequest { request, at, body }: ReceivedRequest) {
        let head = Head::read(&request);
        let found = find(head.method, head.path);
        let route = match &found {
            RouteMatch::Route(route, _) | RouteMatch::Options(route) | RouteMatch::WrongMethod(route) => Some(*route),
            RouteMatch::Nothing => None,
        };
        let traced = route.is_none_or(|route| route.traced);
        if !traced {
            let trace = self.telemetry.tracer.untraced(at);
            let (answer, unread) = self.answer_to(&head, &found, &trace, body, None);
            let is_logged = log::log_enabled!(target: "access", Level::Debug);
            if is_logged {
                self.write_access_line(&head, answer.status);
            }
            self.render(&head, &answer, unread, None);
            let _ = self.send(request, unread);
            if is_logged {
                log::debug!(target: "access", "{}", self.buffers.borrow().access_line);
            }
            return;
        }
        let Telemetry { tracer, pipeline, page } = &self.telemetry;
        page.count_request();
        let capture = page.is_on().then(Capture::start);
        let known = self.service.known_methods.iter().any(|method| method == head.method);
        let incoming = Incoming { at, headers: &head.trace, host: head.host, method: head.method, path: head.path };
        let trace = tracer.begin(&incoming, HTTP_SCOPE, span_name(head.method, known, &found));
        describe_request(&trace, &head, known, route);
        let (answer, unread) = self.answer_to(&head, &found, &trace, body, Some(trace.trace_id()));
        describe_answer(&trace, answer.status, answer.body.len());
        self.write_access_line(&head, answer.status);
        self.render(&head, &answer, unread, Some(&trace));
        if self.send(request, unread).is_err() {
            trace.set_attribute("error.type", "client_gone");
        }
        let level = match answer.status {
            500.. => Level::Error,
            400..=499 => Level::Warn,
            _ => Level::Info,
        };
        log::log!(target: "access", level, "{}", self.buffers.borrow().access_line);
        if let Some(trace) = trace.finish() {
            let trace = Arc::new(trace);
            pipeline.submit(&trace);
            page.observe(trace, capture.map(Capture::finish).unwrap_or_default());
        }
    }

    fn answer_to(
        &self,
        head: &Head<'_>,
        found: &RouteMatch<'_>,
        trace: &RequestTrace<'_>,
        body: Result<Vec<u8>, RejectedRequest>,
        trace_id: Option<TraceId>,
    ) -> (Response, bool) {
        let (result, unread) = match body {
            Ok(body) => (self.result(head, found, trace, &body), false),
            Err(RejectedRequest { failure, unread }) => (Err(failure), unread),
        };
        let answer = result.unwrap_or_else(|failure| {
            if let Failure::Internal(exception) = &failure {
                log::error!("{} at {}", exception.message, exception.place);
                trace.record_exception(exception);
            }
            Response::of(&failure, trace_id)
        });
        (answer, unread)
    }

    fn result(
        &self,
        head: &Head<'_>,
        found: &RouteMatch<'_>,
        trace: &RequestTrace<'_>,
        body: &[u8],
    ) -> Result<Response, Failure> {
        let (route, parameter) = match found {
            RouteMatch::Route(route, parameter) => (route, parameter),
            RouteMatch::Options(route) => return Ok(Response::empty(route.allow())),
            RouteMatch::WrongMethod(route) => {
                let message = format!("{} is not possible here; this path has {}", head.method, route.allow());
                return Err(Failure::Rejected { status: 405, message, allow: Some(route.allow()) });
            }
            RouteMatch::Nothing => {
                let message = "there is nothing here; open / in a browser, or try /api/activities/home";
                return Err(Failure::rejected(404, message));
            }
        };
        let call = RequestContext {
            trace,
            app: &self.service.app,
            page: &self.telemetry.page,
            pipeline: &self.telemetry.pipeline,
            parameter: parameter.clone(),
            query: head.query.unwrap_or_default(),
            body,
            content_type: head.content_type,
            content_encoding: head.content_encoding,
            via: &head.via,
            is_local: head.is_local(),
        };
        catch_unwind(AssertUnwindSafe(|| route.answer(&call))).unwrap_or_else(|_| {
            trace.record_panic();
            Err(Failure::Panicked)
        })
    }

    /// `[2023-Feb-25 22:17] 127.0.0.1 GET http /api/activities/home 200 OK`, the line of the course.
    fn write_access_line(&self, head: &Head<'_>, status: u16) {
        let mut buffers = self.buffers.borrow_mut();
        let Buffers { access_line, minute, .. } = &mut *buffers;
        access_line.clear();
        let now = Utc::now();
        let minute = minute.get(now.timestamp() / 60, now, "%Y-%b-%d %H:%M");
        let _ = write!(access_line, "[{minute}] ");
        let _ = match head.peer {
            Some(peer) => write!(access_line, "{}", peer.ip().to_canonical()),
            None => access_line.write_char('-'),
        };
        let _ = write!(access_line, " {} {} ", head.method, head.scheme());
        push_printable(access_line, head.path);
        if let Some(query) = head.safe_query() {
            access_line.push('?');
            push_printable(access_line, &query);
        }
        let _ = write!(access_line, " {status} {}", StatusCode(status).default_reason_phrase());
    }

    /// Writes the answer's bytes into the buffer. A client whose body is unread is asked to go away afterwards.
    fn render(&self, head: &Head<'_>, answer: &Response, unread: bool, trace: Option<&RequestTrace<'_>>) {
        let mut buffers = self.buffers.borrow_mut();
        let Buffers { answer: out, date, .. } = &mut *buffers;
        out.clear();
        let now = Utc::now();
        let date = date.get(now.timestamp(), now, "%a, %d %b %Y %H:%M:%S GMT");
        let reason = StatusCode(answer.status).default_reason_phrase();
        let _ = write!(out, "HTTP/1.1 {} {reason}\r\nDate: {date}\r\n", answer.status);
        self.headers(head, answer, trace, &mut |name, value| {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        });
        if unread {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        let _ = write!(out, "Content-Length: {}\r\n\r\n", answer.body.len());
        if head.method != "HEAD" {
            out.extend_from_slice(&answer.body);
        }
    }

    fn send(&self, request: Request, unread: bool) -> Result<(), ClientGone> {
        let bytes = &self.buffers.borrow().answer;
        if unread { self.sender.refuse(request, bytes) } else { self.sender.send(request, bytes) }
    }

    fn headers(
        &self,
        head: &Head<'_>,
        answer: &Response,
        trace: Option<&RequestTrace<'_>>,
        put: &mut dyn FnMut(&str, &str),
    ) {
        if !answer.body.is_empty() {
            put("Content-Type", answer.content_type);
        }
        for (name, value) in answer.headers {
            put(name, value);
        }
        if let Some(allow) = answer.allow {
            put("Allow", allow);
        }
        self.service.cors.headers(head.path, head.origin, head.method == "OPTIONS", put);
        if let Some(trace) = trace {
            put("traceparent", &trace.traceparent());
            if !trace.trace_state().is_empty() {
                put("tracestate", trace.trace_state());
            }
            put("X-Amzn-Trace-Id", &trace.x_amzn_trace_id());
        }
    }
}

impl CachedText {
    fn get(&mut self, valid_for: i64, now: DateTime<Utc>, format: &str) -> &str {
        if self.valid_for != valid_for || self.text.is_empty() {
            self.valid_for = valid_for;
            self.text.clear();
            let _ = write!(self.text, "{}", now.format(format));
        }
        &self.text
    }
}

/// How much of a path, and of a query, a line shows.
const MAX_IN_LINE: usize = 2048;

/// What a client sends must not begin a new line in the log, or move the cursor of who reads it.
fn push_printable(line: &mut String, text: &str) {
    for c in text.chars().take(MAX_IN_LINE) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

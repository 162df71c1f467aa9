//! The request loop: it receives a request, calls its route, sends the response and hands the
//! finished trace to the backends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use super::body::{BodyReader, BodyState, ReceivedRequest};
use super::cors::Cors;
use super::head::Head;
use super::listener::{Listener, Next};
use super::process::Cause;
use super::render::{AccessLog, ResponseRenderer};
use super::response::{Failure, Response};
use super::routes::{RequestContext, RouteMatch, find};
use super::semantics::{describe_request, describe_response, span_name};
use super::send::Sender;
use super::ticket::QueuedRequest;
use crate::activities::App;
use crate::client::HTTP_SCOPE;
use crate::delivery::Pipeline;
use crate::logging::Capture;
use crate::page::{Page, ProcessView};
use crate::trace::span::Timestamp;
use crate::trace::{Incoming, RequestTrace, Tracer};

/// The request loop and its parts.
pub struct Server {
    listener: Listener,
    bodies: BodyReader,
    app: App,
    telemetry: Telemetry,
    renderer: ResponseRenderer,
    sender: Sender,
    access_log: AccessLog,
    on_wake: OnWake,
}

/// Traces of requests, and their receivers.
pub struct Telemetry {
    /// Begins the trace of each request.
    pub tracer: Tracer,
    /// Methods that spans are named after; any other is `_OTHER`.
    pub known_methods: Vec<String>,
    /// Delivers finished traces to the backends.
    pub pipeline: Pipeline,
    /// Shows finished traces.
    pub page: Page,
}

/// Function that the loop calls between two requests when another thread has woken it. It may
/// change the tracer, the backends and the page. It must not block.
pub type OnWake = Box<dyn FnMut(&mut Telemetry)>;

/// Reason why the loop has ended.
#[derive(Debug)]
pub enum End {
    /// A stop signal arrived.
    Stopped,
    /// The process must renew itself, for this cause.
    Renew(Cause),
    /// No more connections can be accepted, for this reason.
    Failed(io::Error),
}

/// Maximum time to finish responses after a stop signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The same before a renewal. Meanwhile new clients wait.
const RENEWAL_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for the requests of open connections to arrive before another process takes over.
const LINGER: Duration = Duration::from_millis(25);

impl Server {
    /// A server that answers the requests of `listener` with `app`.
    pub fn new(listener: Listener, app: App, cors: Cors, telemetry: Telemetry, on_wake: OnWake) -> Self {
        Self {
            bodies: BodyReader::new(listener.waker()),
            listener,
            app,
            telemetry,
            renderer: ResponseRenderer::new(cors),
            sender: Sender::default(),
            access_log: AccessLog::default(),
            on_wake,
        }
    }

    /// Serves requests until a stop signal arrives or the process must renew itself, then answers
    /// those already received. Returns the time and the cause of the end.
    pub fn run(&mut self) -> (Instant, End) {
        let end = match self.listener.accept() {
            Ok(()) => self.serve(),
            Err(error) => End::Failed(error),
        };
        let ended = Instant::now();
        self.renderer.close_connections();
        let timeout = if matches!(end, End::Stopped) { DRAIN_TIMEOUT } else { RENEWAL_DRAIN_TIMEOUT };
        // The next process will serve what waits in the backlog of the socket, and this one what it
        // has accepted.
        let is_followed = !matches!(end, End::Stopped) || self.listener.is_shared();
        if is_followed {
            self.listener.pause();
        }
        self.drain(ended + timeout);
        if is_followed {
            self.linger(ended + timeout);
            self.listener.close_connections();
        }
        (ended, end)
    }

    /// The pipeline, which may still hold queued traces when the loop has ended, and the listener.
    pub fn into_parts(self) -> (Pipeline, Listener) {
        self.bodies.abandon();
        (self.telemetry.pipeline, self.listener)
    }

    fn serve(&mut self) -> End {
        loop {
            match self.listener.next() {
                Next::Request(queued) => self.receive(queued),
                Next::Wake => (self.on_wake)(&mut self.telemetry),
                Next::Stop => return End::Stopped,
                Next::Renew(cause) => return End::Renew(cause),
                Next::Failed(error) => return End::Failed(error),
            }
            while let Some(received) = self.bodies.next_ready() {
                self.answer(received);
            }
        }
    }

    /// Answers requests of the connections that are open, for a moment and as long as one is being
    /// answered or may be on its way, until `deadline`. Their clients learn that the connection
    /// ends.
    fn linger(&mut self, deadline: Instant) {
        let until = Instant::now() + LINGER;
        // The look that is under way may not see the connections that were accepted last.
        let looks = self.listener.looks().map(|looks| looks + 2);
        while (Instant::now() < until || self.listener.looks() < looks || self.listener.is_busy())
            && Instant::now() < deadline
        {
            self.drain(deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers the requests that have been received, until `deadline`.
    fn drain(&mut self, deadline: Instant) {
        while Instant::now() < deadline
            && let Some(queued) = self.listener.next_waiting(deadline)
        {
            self.receive(queued);
            if let Some(received) = self.bodies.next_ready() {
                self.answer(received);
            }
        }
        while (self.bodies.has_pending() || self.sender.has_pending()) && Instant::now() < deadline {
            match self.bodies.next_ready() {
                Some(received) => self.answer(received),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn receive(&mut self, queued: QueuedRequest) {
        if let Some(received) = self.bodies.receive(queued) {
            self.answer(received);
        }
    }

    /// Answers one request. An untraced one takes the same path: its trace records nothing, and the
    /// client does not see it.
    fn answer(&mut self, received: ReceivedRequest) {
        let ReceivedRequest { request, ticket, at, body, body_state } = received;
        let head = Head::read(&request);
        let target = find(head.method, head.path);
        let is_traced = target.is_traced();
        let capture = (is_traced && self.telemetry.page.is_on()).then(Capture::start);

        let trace = self.telemetry.begin_trace(at, &head, &target);
        let response = self.respond(&head, &target, &trace, body);
        describe_response(&trace, &response);

        let level = if is_traced { access_level(response.status) } else { Level::Debug };
        let is_logged = log::log_enabled!(target: "access", level);
        let line = if is_logged { self.access_log.line(&head, response.status) } else { "" };
        let bytes = self.renderer.render(&head, &response, is_traced.then_some(&trace), body_state);
        let sent = match body_state {
            BodyState::Read => self.sender.send(request, ticket, bytes),
            BodyState::Unread => self.sender.refuse(request, ticket, bytes),
        };
        if sent.is_err() {
            trace.set_attribute("error.type", "client_gone");
        }
        if is_logged {
            log::log!(target: "access", level, "{line}");
        }
        if let Some(trace) = trace.finish() {
            let (size, trace) = (trace.size(), Arc::new(trace));
            self.telemetry.pipeline.submit(&trace, size);
            if let Some(capture) = capture {
                self.telemetry.page.observe(trace, size, capture.finish());
            }
        }
    }

    /// Returns the response of the route, or the one to its failure.
    fn respond(
        &self,
        head: &Head<'_>,
        target: &RouteMatch<'_>,
        trace: &RequestTrace<'_>,
        body: Result<Vec<u8>, Failure>,
    ) -> Response {
        let Self { listener, app, telemetry: Telemetry { pipeline, page, .. }, .. } = self;
        let process: &dyn Fn() -> ProcessView = &|| listener.process_view();
        let result = body.and_then(|body| match target {
            RouteMatch::Found(route, parameter) => {
                let call = RequestContext { trace, app, page, pipeline, process, head, parameter, body: &body };
                catch_unwind(AssertUnwindSafe(|| (route.handler)(&call))).unwrap_or_else(|_| {
                    trace.record_panic();
                    Err(Failure::Panicked)
                })
            }
            RouteMatch::Options(route) => Ok(Response::empty(route.allow())),
            RouteMatch::MethodNotAllowed(route) => {
                let message = format!("method {} not allowed; this path has {}", head.method, route.allow());
                Err(Failure::Rejected { status: 405, message, allow: Some(route.allow()) })
            }
            RouteMatch::NotFound => {
                Err(Failure::rejected(404, "not found; open / in a browser, or try /api/activities/home"))
            }
        });
        result.unwrap_or_else(|failure| {
            if let Failure::Internal(exception) = &failure {
                log::error!("{} at {}", exception.message, exception.place);
                trace.record_exception(exception);
            }
            Response::from_failure(&failure, target.is_traced().then(|| trace.trace_id()))
        })
    }
}

impl Telemetry {
    /// Begins the trace of a request, with its SERVER span. One that is not traced is not counted
    /// either.
    fn begin_trace(&self, at: Timestamp, head: &Head<'_>, target: &RouteMatch<'_>) -> RequestTrace<'_> {
        if !target.is_traced() {
            return self.tracer.untraced(at);
        }
        self.page.count_request();
        let known_method = self.known_methods.iter().map(String::as_str).find(|method| *method == head.method);
        let incoming = Incoming { at, headers: &head.trace, host: head.host, method: head.method, path: head.path };
        let trace = self.tracer.begin(&incoming, HTTP_SCOPE, span_name(known_method, target));
        describe_request(&trace, head, known_method, target);
        trace
    }
}

fn access_level(status: u16) -> Level {
    match status {
        500.. => Level::Error,
        400..=499 => Level::Warn,
        _ => Level::Info,
    }
}

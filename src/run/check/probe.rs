//! Test trace and log line of a check, and the result of sending them.

use std::borrow::Cow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, Record};

use super::report::{SentItems, Verdict};
use crate::delivery::{Encoder, Encoding, Outcome, Payload, Plan, Problem, Transport, payloads};
use crate::logging::LogLine;
use crate::settings::{Finding, Severity};
use crate::text::{Message, printable};
use crate::trace::context::{Propagator, TraceHeaders};
use crate::trace::id::{IdSource, TraceId};
use crate::trace::sampler::{Decision, Reason, Sampler};
use crate::trace::span::{Limits, Scope, Timestamp};
use crate::trace::{FinishedTrace, Incoming, Tracer};
use crate::wire::recorded::RecordedCall;

/// Items to send: a test trace, and a log line written during that trace.
pub(super) struct TestItems {
    pub(super) trace: Arc<FinishedTrace>,
    pub(super) line: Arc<LogLine>,
}

/// Result of sending one item.
pub(super) struct Probe {
    pub(super) verdict: Verdict,
    pub(super) sent: Option<Size>,
    /// Responses, one line per call.
    pub(super) answers: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

/// Size of the sent payloads.
pub(super) struct Size {
    items: usize,
    bytes: usize,
}

const SCOPE: Scope = Scope::named("cruddur.check");
const NAME: &str = "cruddur check";
/// Time limit for one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Wait for a late refusal, see [`Transport::late_refusal`].
const LATE_REFUSAL: Duration = Duration::from_millis(500);
/// Largest difference between two clocks without a warning, in seconds.
const MAX_SKEW: u64 = 60;

impl TestItems {
    /// Creates the items in the same way as the request loop, but sampled by every backend.
    pub(super) fn new(limits: Limits, plans: &[Plan]) -> Self {
        let samplers = plans.iter().filter_map(|plan| Some((plan.name, Arc::clone(plan.sampler.as_ref()?))));
        let tracer = Tracer {
            ids: IdSource::new(),
            recording: true,
            propagators: vec![Propagator::TraceContext],
            sampler: Sampler::named("always_on", 1.0).expect("a name of Sampler::NAMES"),
            backend_samplers: samplers.collect(),
            limits,
        };
        let headers = TraceHeaders::default();
        let incoming = Incoming { at: Timestamp::now(), headers: &headers, host: None, method: "GET", path: "/" };
        let trace = tracer.begin(&incoming, SCOPE, Cow::Borrowed(NAME));
        let mut span = trace.span(SCOPE, "sent by cruddur check");
        span.set_attribute("cruddur.check", true);
        let text = format_args!("sent by cruddur check");
        let line = LogLine::from_record(&Record::builder().level(Level::Info).target("check").args(text).build());
        drop(span);
        let mut trace = trace.finish().expect("it was begun with recording on");
        for own in &mut trace.backend_decisions {
            own.decision = Decision { sampled: true, reason: Reason::Always };
        }
        Self { trace: Arc::new(trace), line: Arc::new(line) }
    }

    pub(super) fn trace_id(&self) -> TraceId {
        self.trace.trace_id
    }
}

impl Probe {
    /// Encodes and sends one item in the same way as the worker of the backend. Calls `waits` with the
    /// time limit before it waits for an answer.
    pub(super) fn send<T>(
        encoder: &dyn Encoder<T>,
        transport: &mut dyn Transport,
        item: &Arc<T>,
        waits: &dyn Fn(Duration),
    ) -> Self {
        let payloads = payloads(encoder, &[Arc::clone(item)], transport);
        let size = Size {
            items: payloads.iter().map(|payload| payload.items).sum(),
            bytes: payloads.iter().map(|payload| payload.bytes.len()).sum(),
        };
        let (answers, findings) = (Vec::new(), Vec::new());
        let mut probe = Self { verdict: Verdict::Accepted, sent: Some(size), answers, findings };
        payloads.iter().for_each(|payload| probe.deliver(transport, payload, waits));
        probe
    }

    fn deliver(&mut self, transport: &mut dyn Transport, payload: &Payload, waits: &dyn Fn(Duration)) {
        let mut calls = Vec::new();
        let timeout = transport.max_elapsed_time().map_or(TIMEOUT, |max| max.min(TIMEOUT));
        waits(timeout);
        let since = Instant::now();
        let mut outcome = transport.deliver(payload, Some(timeout), &mut calls);
        if let Outcome::Closed(_) = outcome {
            let left = timeout.saturating_sub(since.elapsed());
            outcome = transport.deliver(payload, Some(left), &mut calls);
        }
        if calls.is_empty() {
            self.sent = None;
        }
        self.answers.extend(calls.iter().map(answer));
        self.findings.extend(calls.iter().filter_map(clock_skew).next());
        let is_one_way = calls.iter().all(|call| call.answer.is_none());
        match outcome {
            Outcome::Delivered if is_one_way => {
                thread::sleep(LATE_REFUSAL);
                if let Some(Problem { message, .. }) = transport.late_refusal() {
                    self.report(Verdict::Failed, Severity::Error, message);
                }
            }
            Outcome::Delivered => {}
            Outcome::Warned(problem) => self.report(Verdict::Accepted, Severity::Warning, problem.message),
            Outcome::Partly { problem, .. }
            | Outcome::Refused(problem)
            | Outcome::RefusedForNow(problem)
            | Outcome::Unconfirmed(problem) => {
                self.report(Verdict::Refused, Severity::Error, problem.message);
            }
            Outcome::Closed(problem) | Outcome::Later { problem, .. } => {
                self.report(Verdict::Failed, Severity::Error, for_check(problem.message));
            }
        }
    }

    fn report(&mut self, verdict: Verdict, severity: Severity, message: Message) {
        self.verdict = verdict;
        self.findings.push(Finding { severity, message });
    }
}

impl Size {
    pub(super) fn describe(&self, encoding: &Encoding, trace_id: TraceId) -> SentItems {
        let unit = match (encoding, self.items) {
            (Encoding::Lines(_), 1) => "line",
            _ => encoding.unit(),
        };
        SentItems { items: self.items, unit, bytes: self.bytes, trace_id: trace_id.to_string() }
    }
}

/// Adapts the next step of a message: a server retries by itself, but a check must be run again.
fn for_check(message: Message) -> Message {
    if message.next.starts_with("nothing") {
        return Message::new(message.what).next("check again in a minute; if it fails again, check the receiver");
    }
    message
}

/// Longest part of a response body that is shown, in characters.
const MAX_ANSWER: usize = 200;

/// Returns the response of one call as one line.
fn answer(call: &RecordedCall) -> String {
    match &call.answer {
        None => format!("nothing from {}: UDP has no responses", call.to),
        Some(Err(why)) => format!("nothing from {}: {why}", call.to),
        Some(Ok(answered)) => {
            let status = answered.head.lines().next().unwrap_or_default();
            let body = printable(&String::from_utf8_lossy(&answered.body), MAX_ANSWER);
            let operation = call.head.lines().find_map(|line| line.strip_prefix("x-amz-target: "));
            let operation = operation.map_or_else(String::new, |operation| format!("{operation}: "));
            format!("{operation}{status} {body}").trim_end().to_owned()
        }
    }
}

/// Returns a warning if the server's clock differs by more than [`MAX_SKEW`] from ours. Traces have
/// the time of our clock, and AWS rejects signatures that differ by more than five minutes.
fn clock_skew(call: &RecordedCall) -> Option<Finding> {
    let Some(Ok(answered)) = &call.answer else { return None };
    let theirs = answered.date?;
    let ours = SystemTime::now();
    let (by, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (by.as_secs() > MAX_SKEW).then(|| {
        let (minutes, seconds) = (by.as_secs() / 60, by.as_secs() % 60);
        let what = format!("clock skew: this machine's clock is {minutes} min {seconds} s {direction} {}", call.to);
        let message = Message::new(what).next("set it; traces have the time of this machine");
        Finding { severity: Severity::Warning, message }
    })
}

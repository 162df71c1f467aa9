//! Something to send, and what came of sending it.

use std::borrow::Cow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use log::Level;

use super::report::{Sent, Verdict};
use crate::backends::{Backend, Outcome, Payload, Plan};
use crate::logging::LogLine;
use crate::printable::printable;
use crate::settings::{Finding, Severity};
use crate::trace::context::{Propagator, TraceHeaders};
use crate::trace::id::{IdSource, TraceId};
use crate::trace::sampler::{Decision, Reason, Sampler};
use crate::trace::span::{Limits, Moment, Scope};
use crate::trace::{FinishedTrace, Incoming, Tracer, current};
use crate::wire::exchange::Exchange;

/// What is sent: a trace that says what it is, and a log line from within it.
pub(super) struct Specimen {
    pub(super) trace: Arc<FinishedTrace>,
    pub(super) line: Arc<LogLine>,
}

/// What came of sending it.
pub(super) struct Probe {
    pub(super) verdict: Verdict,
    pub(super) sent: Option<Size>,
    /// What came back, a line for each call.
    pub(super) answers: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

/// How much left.
pub(super) struct Size {
    items: usize,
    bytes: usize,
}

const SCOPE: Scope = Scope::named("cruddur.check");
const NAME: &str = "cruddur check";
/// Longer than any answer that is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a complaint takes that comes by itself.
const COMPLAINTS_COME: Duration = Duration::from_millis(500);
/// How far two clocks may differ before somebody should know.
const MOST_SKEW: u64 = 60;

impl Specimen {
    /// Made as the request loop makes a trace, except that everybody takes it.
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
        let incoming = Incoming { at: Moment::now(), headers: &headers, host: None, method: "GET", path: "/" };
        let trace = tracer.begin(&incoming, SCOPE, Cow::Borrowed(NAME));
        let mut span = trace.span(SCOPE, "sent by cruddur check");
        span.set_attribute("cruddur.check", true);
        let line = LogLine {
            time: u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or_default(),
            level: Level::Info,
            target: "check".to_owned(),
            message: "sent by cruddur check".to_owned(),
            key_values: Vec::new(),
            span: current::span(),
        };
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
    pub(super) fn send<T>(backend: &mut dyn Backend<T>, item: &Arc<T>) -> Self {
        let (sent, answers, findings) = (None, Vec::new(), Vec::new());
        let mut probe = Self { verdict: Verdict::Local, sent, answers, findings };
        if !backend.is_remote() {
            return probe;
        }
        probe.verdict = Verdict::Accepted;
        let payloads = backend.encode(&[Arc::clone(item)]);
        let items = payloads.iter().map(|payload| payload.items).sum();
        probe.sent = Some(Size { items, bytes: payloads.iter().map(|payload| payload.bytes.len()).sum() });
        for payload in &payloads {
            probe.deliver(backend, payload);
        }
        probe
    }

    fn deliver<T>(&mut self, backend: &mut dyn Backend<T>, payload: &Payload) {
        let mut seen = Vec::new();
        let patience = Some(backend.budget().map_or(PATIENCE, |budget| budget.min(PATIENCE)));
        let mut outcome = backend.deliver(payload, patience, &mut seen);
        if let Outcome::Closed(_) = outcome {
            outcome = backend.deliver(payload, patience, &mut seen);
        }
        if seen.is_empty() {
            self.sent = None;
        }
        self.answers.extend(seen.iter().map(answer));
        self.findings.extend(seen.iter().filter_map(clock_skew).next());
        let one_way = seen.iter().all(|exchange| exchange.answer.is_none());
        let web_page = seen.iter().find(|exchange| is_web_page(exchange));
        let mut problem = |verdict, severity, text| {
            self.verdict = verdict;
            self.findings.push(Finding { severity, text });
        };
        match outcome {
            Outcome::Delivered if one_way => {
                thread::sleep(COMPLAINTS_COME);
                if let Some(complaint) = backend.complaint() {
                    problem(Verdict::Failed, Severity::Error, complaint.text);
                }
            }
            Outcome::Delivered => {
                if let Some(exchange) = web_page {
                    let text = format!(
                        "{} took it and answered with a web page, which no receiver of telemetry does; next: check host, port and \
                         path, and that no proxy stands between",
                        exchange.to
                    );
                    problem(Verdict::Refused, Severity::Error, text);
                }
            }
            Outcome::Partly { rejected: 0, said } => problem(Verdict::Accepted, Severity::Warning, said.text),
            Outcome::Partly { said, .. } | Outcome::Refused(said) => {
                problem(Verdict::Refused, Severity::Error, said.text);
            }
            Outcome::DeliveredAfterLoss { said, .. } | Outcome::Closed(said) | Outcome::Later { said, .. } => {
                problem(Verdict::Failed, Severity::Error, for_check(said.text));
            }
        }
    }
}

impl Size {
    pub(super) fn describe(&self, lines: bool, trace_id: TraceId) -> Sent {
        let unit = match (lines, self.items) {
            (true, 1) => "line",
            (true, _) => "lines",
            (false, _) => "spans",
        };
        Sent { items: self.items, unit, bytes: self.bytes, trace_id: trace_id.hex().as_str().to_owned() }
    }
}

/// A running server tries again by itself; whoever checks has to do it.
fn for_check(text: String) -> String {
    match text.split_once("; next: nothing") {
        Some((problem, _)) => {
            format!("{problem}; next: check again in a minute, and look at the other side if it stays so")
        }
        None => text,
    }
}

/// How much of an answer's body is repeated, in characters.
const LONGEST_ANSWER: usize = 200;

/// What came back from one call, in a line.
fn answer(exchange: &Exchange) -> String {
    match &exchange.answer {
        None => format!("{}: nothing, this wire has no answers", exchange.to),
        Some(Err(why)) => format!("{}: {why}", exchange.to),
        Some(Ok(answered)) => {
            let status = answered.head.lines().next().unwrap_or_default();
            let body = printable(&String::from_utf8_lossy(&answered.body), LONGEST_ANSWER);
            let operation = exchange.head.lines().find_map(|line| line.strip_prefix("x-amz-target: "));
            let operation = operation.map_or_else(String::new, |operation| format!("{operation}: "));
            format!("{operation}{status} {body}").trim_end().to_owned()
        }
    }
}

/// Whatever server is asked may answer 200, and a page that says hello, or asks to log in.
fn is_web_page(exchange: &Exchange) -> bool {
    let Some(Ok(answered)) = &exchange.answer else { return false };
    let begins_with = |tag: &[u8]| {
        answered.body.trim_ascii_start().get(..tag.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(tag))
    };
    begins_with(b"<!doctype html") || begins_with(b"<html")
}

/// Whether the clock over there shows another time: traces are filed under ours, and signatures are void after five minutes.
fn clock_skew(exchange: &Exchange) -> Option<Finding> {
    let Some(Ok(answered)) = &exchange.answer else { return None };
    let theirs = answered.date?;
    let ours = SystemTime::now();
    let (by, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "fast"),
        Err(behind) => (behind.duration(), "slow"),
    };
    (by.as_secs() > MOST_SKEW).then(|| {
        let (minutes, seconds) = (by.as_secs() / 60, by.as_secs() % 60);
        let text = format!(
            "this machine's clock is {minutes} min {seconds} s {direction} of the one at {}; next: set it, or traces are looked for at \
             the wrong time",
            exchange.to
        );
        Finding { severity: Severity::Warning, text }
    })
}

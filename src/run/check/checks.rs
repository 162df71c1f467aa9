//! The checks of all backends, each on a thread of its own, and what they report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::listed;
use super::probe::{Probe, TestItems};
use super::report::{BackendReport, Report, Verdict};
use crate::delivery::{Encoding, Plan, SpoolView, State, inspect};
use crate::run::config::Configuration;
use crate::settings::{Finding, Severity, SpoolLimits};
use crate::text::Message;
use crate::trace::id::IdSource;

/// The checks that run, and the results of those that have ended.
pub(super) struct Checks {
    /// The report so far. A backend that is still checked has the verdict `Unknown`.
    report: Report,
    running: Vec<Running>,
    events: Receiver<Event>,
    is_interrupted: bool,
}

/// A backend that is still checked.
pub(super) struct Running {
    /// Its place in the report.
    index: usize,
    pub(super) name: &'static str,
    /// Begin of the wait for an answer.
    pub(super) since: Instant,
    /// Time limit of that wait.
    pub(super) limit: Duration,
}

/// Progress.
pub(super) enum Progress {
    /// The check of this backend has ended.
    Done(usize),
    /// The time that the caller wanted to wait at most is over, or a check has begun another wait.
    Wait,
}

enum Event {
    /// A wait for an answer begins, with its time limit.
    Waits(usize, Duration),
    /// The check has ended.
    Done(usize, Box<BackendReport>),
    /// The user has pressed Ctrl-C.
    Interrupted,
}

impl Checks {
    /// Starts all checks in parallel. They take as long as the slowest one, at most about 12 seconds.
    pub(super) fn start(configuration: Configuration) -> Self {
        let (sender, events) = channel();
        Self::start_with(configuration, sender, events)
    }

    /// The same, but SIGINT no longer ends the program: it ends the checks. A second SIGINT ends the
    /// program.
    pub(super) fn start_interruptible(configuration: Configuration) -> Self {
        let (sender, events) = channel();
        let signals = SigSet::from(Signal::SIGINT);
        // Threads that are started later inherit the mask.
        if signals.thread_block().is_ok() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut was_sent = false;
                while signals.wait().is_ok() {
                    if was_sent {
                        std::process::exit(i32::from(super::INTERRUPTED));
                    }
                    was_sent = sender.send(Event::Interrupted).is_ok();
                }
            });
        }
        Self::start_with(configuration, sender, events)
    }

    fn start_with(configuration: Configuration, sender: Sender<Event>, events: Receiver<Event>) -> Self {
        let Configuration { settings, plans, findings, values, file, .. } = configuration;
        let items = Arc::new(TestItems::new(settings.limits, &plans));
        let report = Report {
            ok: false,
            settings: file.map(|path| path.display().to_string()),
            service_name: settings.service_name.value,
            service_name_from: settings.service_name.origin.to_string(),
            findings,
            values: listed(&values, ""),
            backends: plans.iter().map(before_check).collect(),
        };
        let mut checks = Self { report, running: Vec::new(), events, is_interrupted: false };
        for (index, plan) in plans.into_iter().enumerate() {
            let report = checks.report.backends[index].clone();
            if report.verdict == Verdict::Unknown {
                let running = Running { index, name: plan.name, since: Instant::now(), limit: Duration::ZERO };
                checks.running.push(running);
                let (items, sender) = (Arc::clone(&items), sender.clone());
                thread::spawn(move || {
                    let waits = |limit| drop(sender.send(Event::Waits(index, limit)));
                    let name = plan.name;
                    let report = catch_unwind(AssertUnwindSafe(|| check(plan, report, &items, &waits)))
                        .unwrap_or_else(|_| BackendReport::from_panic(name));
                    drop(sender.send(Event::Done(index, Box::new(report))));
                });
            }
        }
        checks
    }

    /// Waits until a check has ended, at most for `timeout`. Returns `None` if no check is running any
    /// more.
    pub(super) fn next(&mut self, timeout: Option<Duration>) -> Option<Progress> {
        if self.running.is_empty() || self.is_interrupted {
            return None;
        }
        let event = match timeout {
            Some(timeout) => self.events.recv_timeout(timeout),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Waits(index, limit)) => {
                if let Some(running) = self.running.iter_mut().find(|running| running.index == index) {
                    (running.since, running.limit) = (Instant::now(), limit);
                }
                Some(Progress::Wait)
            }
            Ok(Event::Done(index, report)) => {
                self.running.retain(|running| running.index != index);
                self.report.backends[index] = *report;
                Some(Progress::Done(index))
            }
            Ok(Event::Interrupted) => {
                self.is_interrupted = true;
                None
            }
            Err(RecvTimeoutError::Timeout) => Some(Progress::Wait),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// The backends that are still checked.
    pub(super) fn running(&self) -> &[Running] {
        &self.running
    }

    /// True if the user has ended the checks.
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// The report on all backends.
    pub(super) fn report(&mut self) -> &Report {
        self.report.ok = self.report.backends.iter().all(|backend| backend.verdict.is_well());
        &self.report
    }
}

/// Returns what is known about a backend before it is checked. The verdict is `Unknown` if there is
/// something to check.
fn before_check(plan: &Plan) -> BackendReport {
    let verdict = match &plan.transport {
        None if plan.state == State::Waiting => Verdict::Waiting,
        None => Verdict::Off,
        Some(_) if !plan.is_remote => Verdict::Local,
        Some(_) => Verdict::Unknown,
    };
    let stored = plan.spool.as_ref().and_then(|limits| stored(plan, limits));
    BackendReport {
        name: plan.name,
        verdict,
        destination: plan.destination.clone(),
        reason: plan.reason.clone(),
        findings: plan.findings.iter().cloned().chain(stored).collect(),
        values: listed(&plan.values, plan.name),
        ..BackendReport::default()
    }
}

fn check(plan: Plan, mut report: BackendReport, items: &TestItems, waits: &dyn Fn(Duration)) -> BackendReport {
    let Plan { encoding, transport, task, .. } = plan;
    let Some(mut transport) = transport else { return report };
    let probe = match &encoding {
        Encoding::Traces(encoder) => Probe::send(&**encoder, &mut *transport, &items.trace, waits),
        Encoding::Lines(encoder) => Probe::send(&**encoder, &mut *transport, &items.line, waits),
    };
    report.verdict = probe.verdict;
    report.sent = probe.sent.map(|sent| sent.describe(&encoding, items.trace_id()));
    report.answers = probe.answers;
    report.findings.extend(probe.findings);
    if let Some(mut task) = task {
        waits(task.check_timeout());
        report.findings.extend(task.check());
    }
    if report.verdict == Verdict::Accepted && report.findings.iter().any(|finding| finding.severity == Severity::Error)
    {
        report.verdict = Verdict::Refused;
    }
    report
}

/// Returns a note on what the backend has stored on disk, or a warning if nothing can be stored.
fn stored(plan: &Plan, limits: &SpoolLimits) -> Option<Finding> {
    match inspect(limits, plan.name, plan.encoding.unit(), &IdSource::new()) {
        Ok(SpoolView { text, .. }) if text.is_empty() => None,
        Ok(SpoolView { text, .. }) => {
            let next = match plan.state {
                State::On => "nothing to do; a running cruddur sends them",
                State::Off | State::Waiting => "switch the backend on; a running cruddur sends them then",
            };
            let message = Message::new(text).next(next);
            Some(Finding { severity: Severity::Note, message })
        }
        Err(error) => {
            let what = format!("cannot write to {}: {error}; nothing can be stored", limits.directory.display());
            let message = Message::new(what).next("check spool_dir, and that this user may write there");
            Some(Finding { severity: Severity::Warning, message })
        }
    }
}

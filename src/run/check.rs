//! `cruddur check`: one real trace and one real log line to everybody who is to hear about requests, by the same encoders
//! and over the same wires as the server's; then what came back, and what to do about it.
//!
//! ```text
//! $ cruddur check
//! settings telemetry.toml, service backend-flask (telemetry.toml:6)
//!
//! honeycomb  NOT ACCEPTED  https://api.honeycomb.io/v1/traces
//!     enabled at telemetry.toml:38; address from telemetry.toml:40; headers content-type, user-agent, x-honeycomb-team
//!     set       [honeycomb] enabled = true (telemetry.toml:38)
//!     set       [honeycomb] api_key = ending in wxyz (22 characters) (HONEYCOMB_API_KEY)
//!     sent      2 spans in 1412 bytes, trace 6b069ab66823a8b62cc18bf0b659319e
//!     answered  HTTP/1.1 401 Unauthorized {"message":"unknown API key"}
//!     error: https://api.honeycomb.io/v1/traces answered 401 (unknown API key); next: check the API key ending in ...
//! ```

mod probe;
mod report;

use std::thread;

use super::loaded::Loaded;
use crate::backends::{Plan, Sink, Switch};
use crate::settings::{Reading, Severity};

use probe::{Probe, Specimen};
use report::{BackendReport, Report, Value, Verdict};

/// Sends a trace and a line to every backend that is on, and answers what came of it. It takes as long as the slowest of
/// them, a dozen seconds at worst.
pub(super) fn everybody(loaded: Loaded) -> Report {
    let Loaded { settings, plans, findings, readings, file, .. } = loaded;
    let specimen = Specimen::new(settings.limits, &plans);
    let checked = thread::scope(|scope| {
        let specimen = &specimen;
        let begin = |plan: Plan| (plan.name, scope.spawn(move || backend(plan, specimen)));
        let threads: Vec<_> = plans.into_iter().map(begin).collect();
        threads
            .into_iter()
            .map(|(name, thread)| thread.join().unwrap_or_else(|_| BackendReport::of_a_bug(name)))
            .collect()
    });
    Report::new(file.map(|path| path.display().to_string()), &settings, findings, values(&readings, ""), checked)
}

fn backend(plan: Plan, specimen: &Specimen) -> BackendReport {
    let Plan { name, switch, reason, destination, companion, findings, readings, takes_lines, .. } = plan;
    let mut report = BackendReport { destination, reason, findings, ..BackendReport::new(name) };
    report.values = values(&readings, name);
    let probe = match switch {
        Switch::Off => return report,
        Switch::Waiting => {
            report.verdict = Verdict::Waiting;
            return report;
        }
        Switch::On(Sink::Traces(mut backend)) => Probe::send(&mut *backend, &specimen.trace),
        Switch::On(Sink::Lines(_, mut backend)) => Probe::send(&mut *backend, &specimen.line),
    };
    report.verdict = probe.verdict;
    report.sent = probe.sent.map(|sent| sent.describe(takes_lines, specimen.trace_id()));
    report.answers = probe.answers;
    report.findings.extend(probe.findings);
    if let Some(mut companion) = companion {
        report.findings.extend(companion.check());
    }
    if report.verdict == Verdict::Accepted && report.findings.iter().any(|finding| finding.severity == Severity::Error)
    {
        report.verdict = Verdict::Refused;
    }
    report
}

/// What belongs to the table `name`, or to none. A backend may have been made from more than that.
fn values(readings: &[Reading], name: &str) -> Vec<Value> {
    let table = format!("[{name}]");
    let is_shown = |reading: &&Reading| {
        let of_all = reading.key == "service_name" || reading.key.starts_with("[resource]");
        name.is_empty() || reading.key.starts_with(&table) || (!of_all && !reading.key.starts_with('['))
    };
    let value = |Reading { key, shown, origin, .. }: &Reading| Value {
        key: key.clone(),
        value: shown.clone(),
        origin: origin.to_string(),
    };
    readings.iter().filter(is_shown).map(value).collect()
}

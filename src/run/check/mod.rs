//! `cruddur check`: sends one real trace and one real log line to each backend that is on, with the
//! encoders and transports of the server. Prints the responses and the next steps.
//!
//! ```text
//! $ cruddur check
//! settings telemetry.toml, service backend-flask (telemetry.toml:9)
//!
//! honeycomb  NOT ACCEPTED  https://api.honeycomb.io/v1/traces
//!     enabled at telemetry.toml:51; address from telemetry.toml:53; headers content-type, ...
//!     set       [honeycomb] enabled = true (telemetry.toml:51)
//!     set       [honeycomb] api_key = ending in wxyz (22 characters) (HONEYCOMB_API_KEY)
//!     sent      2 spans in 1412 bytes, trace 6b069ab66823a8b62cc18bf0b659319e
//!     answered  HTTP/1.1 401 Unauthorized {"message":"unknown API key"}
//!     error: HTTP 401 Unauthorized from https://api.honeycomb.io/v1/traces (unknown API key); next: check ...
//! ```

mod probe;
mod report;

use std::path::Path;
use std::thread;

use self::probe::{Probe, TestItems};
use self::report::{BackendReport, Report, SettingValue, Verdict};
use super::config::{CliArgs, Configuration};
use super::{Exit, print};
use crate::delivery::{Encoding, Plan, State};
use crate::settings::{Env, Severity, Values};
use crate::trace::id::IdSource;

/// Sends a trace and a log line to every backend that is on, and prints a report.
///
/// # Errors
///
/// The settings are invalid (status 2), or a backend that is on has not accepted everything (status
/// 1, after the report).
pub fn check(config: Option<&Path>, format: Format) -> Result<(), Exit> {
    let instance = IdSource::new().uuid();
    let args = CliArgs { config: config.map(Path::to_owned), env: Env::from_process(), instance, ..CliArgs::default() };
    let configuration = match Configuration::read(&args) {
        Ok(configuration) => configuration,
        Err(error) => {
            if format == Format::Json {
                print(&format!("{}\n", serde_json::json!({ "ok": false, "error": error })))?;
            }
            return Err(Exit::wrong(error));
        }
    };
    let report = check_all(configuration);
    match format {
        Format::Text => print(&format!("{report}\n"))?,
        Format::Json => {
            let json = serde_json::to_string_pretty(&report);
            let json = json.map_err(|error| Exit::failed(format!("cannot write the report as JSON: {error}")))?;
            print(&format!("{json}\n"))?;
        }
    }
    if report.ok { Ok(()) } else { Err(Exit::failed("not every backend that is on accepted the test data")) }
}

/// Format of the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

/// Checks all backends in parallel. Takes as long as the slowest one, at most about 12 seconds.
fn check_all(configuration: Configuration) -> Report {
    let Configuration { settings, plans, findings, values, file, .. } = configuration;
    let items = TestItems::new(settings.limits, &plans);
    let backends: Vec<BackendReport> = thread::scope(|scope| {
        let items = &items;
        let begin = |plan: Plan| (plan.name, scope.spawn(move || check_backend(plan, items)));
        let threads: Vec<_> = plans.into_iter().map(begin).collect();
        let end = |(name, thread): (&'static str, thread::ScopedJoinHandle<'_, BackendReport>)| {
            thread.join().unwrap_or_else(|_| BackendReport::from_panic(name))
        };
        threads.into_iter().map(end).collect()
    });
    Report {
        ok: backends.iter().all(|backend| backend.verdict.is_well()),
        settings: file.map(|path| path.display().to_string()),
        service_name: settings.service_name.value,
        service_name_from: settings.service_name.origin.to_string(),
        findings,
        values: listed(&values, ""),
        backends,
    }
}

fn check_backend(plan: Plan, items: &TestItems) -> BackendReport {
    let Plan { name, encoding, is_remote, state, transport, reason, destination, task, findings, values, .. } = plan;
    let values = listed(&values, name);
    let mut report = BackendReport { name, destination, reason, findings, values, ..BackendReport::default() };
    let mut transport = match transport {
        None if state == State::Waiting => return BackendReport { verdict: Verdict::Waiting, ..report },
        None => return report,
        Some(_) if !is_remote => return BackendReport { verdict: Verdict::Local, ..report },
        Some(transport) => transport,
    };
    let probe = match &encoding {
        Encoding::Traces(encoder) => Probe::send(&**encoder, &mut *transport, &items.trace),
        Encoding::Lines(encoder) => Probe::send(&**encoder, &mut *transport, &items.line),
    };
    report.verdict = probe.verdict;
    report.sent = probe.sent.map(|sent| sent.describe(&encoding, items.trace_id()));
    report.answers = probe.answers;
    report.findings.extend(probe.findings);
    if let Some(mut task) = task {
        report.findings.extend(task.check());
    }
    if report.verdict == Verdict::Accepted && report.findings.iter().any(|finding| finding.severity == Severity::Error)
    {
        report.verdict = Verdict::Refused;
    }
    report
}

/// Returns the set values of the table `name`, and those of no table. An empty `name` selects all.
/// Omits the general values that every backend depends on.
fn listed(values: &Values, name: &str) -> Vec<SettingValue> {
    let table = format!("[{name}]");
    let is_listed = |key: &str| {
        let of_all = key == "service_name" || key.starts_with("[resource]");
        name.is_empty() || key.starts_with(&table) || (!of_all && !key.starts_with('['))
    };
    let listed = values.iter().filter(|value| value.is_set() && is_listed(&value.key));
    listed
        .map(|value| SettingValue {
            key: value.key.clone(),
            value: value.shown.clone(),
            origin: value.origin.to_string(),
        })
        .collect()
}

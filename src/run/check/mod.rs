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

mod checks;
mod probe;
mod progress;
mod report;

use std::path::Path;

use self::checks::Checks;
use self::report::SettingValue;
use super::config::{CliArgs, Configuration};
use super::{Exit, print};
use crate::settings::{Env, Values};
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
    let mut checks = match format {
        Format::Text => Checks::start_interruptible(configuration),
        Format::Json => Checks::start(configuration),
    };
    match format {
        Format::Text => progress::print(&mut checks)?,
        Format::Json => {
            while checks.next(None).is_some() {}
            let json = serde_json::to_string_pretty(&checks.report());
            let json = json.map_err(|error| Exit::failed(format!("cannot write the report as JSON: {error}")))?;
            print(&format!("{json}\n"))?;
        }
    }
    match checks.report() {
        report if report.ok => Ok(()),
        _ if checks.is_interrupted() => Err(Exit { status: INTERRUPTED, ..Exit::failed("interrupted") }),
        _ => Err(Exit::failed("not every backend that is on accepted the test data")),
    }
}

/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Format of the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
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

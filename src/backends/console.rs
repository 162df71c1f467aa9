//! The console: every trace on standard output, for people (`tree`) or for programs (`json`).
//!
//! In: a batch of finished traces. Out: lines.
//!
//! `tree`, a line a span, children below their parent:
//!
//! ```text
//! GET /api/activities/home  0.21 ms  trace=5b8efff798038103d269b633813fc60c http.request.method=GET ...
//!   home-activities-mock-data  0.04 ms  app.now=2023-02-20T00:00:00+00:00 app.result_length=3
//! ```
//!
//! `json`, an object a line, in the order in which the spans ended, with the fields of the ConsoleSpanExporter that the
//! course's students know from Python:
//!
//! ```text
//! {"name":"home-activities-mock-data","context":{"trace_id":"0x5b8e...","span_id":"0x0515...","trace_state":"[]"},
//!  "kind":"SpanKind.INTERNAL","parent_id":"0xeee1...","start_time":"2023-02-20T00:00:00.001000Z","end_time":...,
//!  "status":{"status_code":"UNSET"},"attributes":{...},"events":[],"links":[],"resource":{...}}
//! ```
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/stdout/>, which leaves the format open.

mod json;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Outcome, Payload, Plan, Plugin, Sink, Switch};
use crate::delivery::{BatchLimits, Problem};
use crate::settings::{Settings, SettingsError, Sources, Table, batch_limits};
use crate::trace::FinishedTrace;
use crate::trace::span::Attribute;
use crate::wire::exchange::Exchange;
use crate::wire::stdout;

/// `[console]`.
pub const PLUGIN: Plugin = Plugin { name: "console", toml: TOML, plan, explain: None };

const TOML: &str = r#"
# Every trace on standard output.
[console]
enabled = true
# "tree" for people, "json" for programs: one object a line, with the fields of Python's ConsoleSpanExporter.
format = "tree"
# A trace is printed after at most this many milliseconds.
schedule_delay = 100
max_export_batch_size = 512
max_queue_size = 2048
"#;

/// A tenth of a second is at once for people, and a fraction of the work for a busy server.
const LIMITS: BatchLimits = BatchLimits { delay: Duration::from_millis(100), queue: 2048, batch: 512 };

struct Console {
    json: bool,
    resource: Vec<Attribute>,
}

fn plan(table: &Table<'_>, _: &Sources, settings: &Settings) -> Result<Plan, SettingsError> {
    let enabled = table.flag("enabled", true)?;
    let format = table.choice("format", &[], &["tree", "json"], "tree")?;
    let limits = batch_limits(table, ["", "", ""], LIMITS)?;
    let console = Console { json: format.value == "json", resource: settings.resource.clone() };
    let mut plan = Plan::off("console", &enabled, limits);
    plan.destination = "standard output".to_owned();
    plan.reason = format!("enabled = {} ({}), format {}", enabled.value, enabled.origin, format.value);
    if enabled.value {
        plan.switch = Switch::On(Sink::Traces(Box::new(console)));
    }
    Ok(plan)
}

impl Backend<FinishedTrace> for Console {
    fn encode(&self, batch: &[Arc<FinishedTrace>]) -> Vec<Payload> {
        let mut bytes = Vec::new();
        for trace in batch {
            if self.json {
                json::write(&mut bytes, trace, &self.resource);
            } else {
                tree::write(&mut bytes, trace);
            }
        }
        let items = batch.iter().map(|trace| trace.spans.len()).sum();
        vec![Payload { bytes, items, traces: batch.iter().map(|trace| trace.trace_id).collect(), trimmed: None }]
    }

    fn deliver(&mut self, payload: &Payload, _: Option<Duration>, seen: &mut Vec<Exchange>) -> Outcome {
        seen.push(Exchange::one_way("standard output".to_owned()));
        match stdout::write(&payload.bytes) {
            Ok(()) => Outcome::Delivered,
            Err(error) => {
                let text =
                    format!("standard output: {error}; next: set enabled = false in [console] if nobody reads it");
                Outcome::Refused(Problem { kind: error.kind().to_string(), text })
            }
        }
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn budget(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::trace::sample;
    use crate::trace::span::SpanData;

    fn printed(json: bool, trace: FinishedTrace) -> Vec<u8> {
        let console = Console { json, resource: sample::resource() };
        console.encode(&[Arc::new(trace)]).remove(0).bytes
    }

    #[test]
    fn a_tree_is_a_line_a_span() {
        golden::check("console_tree.txt", &printed(false, sample::trace()));
    }

    #[test]
    fn json_is_an_object_a_line_with_the_fields_of_pythons_exporter() {
        let lines = printed(true, sample::trace());
        golden::check("console_json.txt", &lines);
        let names: Vec<String> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["name"].to_string())
            .collect();
        assert_eq!(names, ["\"home-activites-mock-data\"", "\"GET /api/activities/home\""]);
    }

    #[test]
    fn every_span_is_printed_once_even_an_orphan() {
        let mut trace = sample::trace();
        let orphan = SpanData { name: "orphan".into(), parent: trace.spans[0].parent, ..trace.spans[1].clone() };
        trace.spans.push(orphan);
        let tree = String::from_utf8(printed(false, trace)).unwrap();
        assert_eq!(tree.lines().count(), 3, "{tree}");
        assert_eq!(tree.matches("orphan").count(), 1, "{tree}");
    }

    #[test]
    fn what_a_client_sent_cannot_move_the_cursor() {
        let mut trace = sample::trace();
        trace.spans[0].name = "GET /\u{1b}[2J".into();
        let tree = String::from_utf8(printed(false, trace)).unwrap();
        assert!(!tree.contains('\u{1b}') && !tree.contains('\u{1}'), "{tree}");
    }
}

//! Console: prints every trace on standard output, for people (`tree`) or for programs (`json`).
//!
//! In: a batch of finished traces. Out: lines.
//!
//! `tree` prints one line per span, with the children below their parent. On a terminal the line fits
//! the width, and shows what a reader wants to know at once:
//!
//! ```text
//! ✓ GET /api/activities/home    ██████████  0.21 ms 200
//!   └ home-activities-mock-data   ▐█▌       0.04 ms     app.now=2023-02-20T00:00:00+00:00 ...
//!   trace 5b8efff798038103d269b633813fc60c
//! ```
//!
//! `full` adds the other attributes, each on a line. Elsewhere, in a pipe or a file, both print
//! everything on the line of the span:
//!
//! ```text
//! GET /api/activities/home  0.21 ms  trace=5b8efff798038103d269b633813fc60c http.request.method=GET ...
//!   home-activities-mock-data  0.04 ms  app.now=2023-02-20T00:00:00+00:00 app.result_length=3
//! ```
//!
//! `json` prints one object per line, in the order in which the spans ended. Its fields are those
//! of the ConsoleSpanExporter that the course's students know from Python:
//!
//! ```text
//! {"name":"home-activities-mock-data",
//!  "context":{"trace_id":"0x5b8e...","span_id":"0x0515...","trace_state":"[]"},
//!  "kind":"SpanKind.INTERNAL","parent_id":"0xeee1...",
//!  "start_time":"2023-02-20T00:00:00.001000Z","end_time":...,"status":{"status_code":"UNSET"},
//!  "attributes":{...},"events":[],"links":[],"resource":{...}}
//! ```
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/stdout/>, which
//! leaves the format open.

mod json;
mod line;
mod screen;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use self::screen::Screen;
use super::{PlanContext, Plugin};
use crate::delivery::{Encoder, Encoding, Outcome, Payload, Plan, Problem, Transport};
use crate::settings::BatchLimits;
use crate::settings::section::{choice, flag, section, whole};
use crate::terminal::{Sequences, Terminal};
use crate::text::Message;
use crate::trace::FinishedTrace;
use crate::trace::span::Attribute;
use crate::wire::recorded::RecordedCall;
use crate::wire::stdout;

/// `[console]`.
pub const PLUGIN: Plugin = Plugin { name: "console", section: &Console::SECTION, plan, explain: None };

section! {
    /// Prints the traces on standard output.
    struct Console("console") {
        enabled: bool = flag(true),
        /// "tree" is for people, and "full" adds all attributes. "json" is for programs: one object
        /// per line, with the fields of Python's ConsoleSpanExporter.
        format: &'static str = choice("tree", &["tree", "full", "json"]),
        // People do not notice 100 ms, and a busy server writes less often.
        /// Longest time before a trace is printed, in milliseconds.
        schedule_delay: u64 = whole(100, 1..=3_600_000),
        /// Spans per batch. A trace is never split.
        max_export_batch_size: u64 = whole(512, 1..=1_000_000),
        /// Spans that the queue holds. More are dropped and counted.
        max_queue_size: u64 = whole(2048, 1..=1_000_000),
    }
}

/// Encoder of traces as lines for people, with all attributes on the line of the span.
struct Lines {
    sequences: Sequences,
}

/// Encoder of traces for a terminal.
struct Tree {
    width: Arc<AtomicUsize>,
    sequences: Sequences,
    is_full: bool,
}

/// Encoder of spans as JSON for programs.
struct JsonLines {
    resource: Vec<Attribute>,
}

/// Transport to standard output.
struct Stdout {
    /// Columns of the terminal, for the encoder. `None` if the encoder does not need it.
    width: Option<Arc<AtomicUsize>>,
}

fn plan(context: &mut PlanContext<'_>) -> Result<Plan, Message> {
    let PlanContext { sources, shared, findings } = context;
    let (table, mut values) = Console::read(sources, findings)?;
    shared.add_to(&mut values);
    let limits = BatchLimits::new(&table.schedule_delay, &table.max_queue_size, &table.max_export_batch_size, findings);
    let Terminal { width, palette, .. } = stdout::terminal();
    let sequences = Sequences::new(&palette);
    let width = width.filter(|_| table.format.value != "json").map(|width| Arc::new(AtomicUsize::new(width)));
    let encoding = match (table.format.value, &width) {
        ("json", _) => Encoding::Traces(Arc::new(JsonLines { resource: shared.resource.clone() })),
        (_, None) => Encoding::Traces(Arc::new(Lines { sequences })),
        (format, Some(width)) => {
            Encoding::Traces(Arc::new(Tree { width: Arc::clone(width), sequences, is_full: format == "full" }))
        }
    };
    let plan = Plan { is_remote: false, ..Plan::new("console", encoding, limits, values) };
    let (enabled, format) = (&table.enabled, table.format.value);
    let reason = format!("enabled = {} ({}), format {format}", enabled.value, enabled.origin);
    let plan = if enabled.value { plan.on(Stdout { width }, reason) } else { Plan { reason, ..plan } };
    Ok(Plan { destination: "standard output".to_owned(), ..plan })
}

impl Encoder<FinishedTrace> for Lines {
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        vec![payload(batch, |trace, bytes| tree::write(bytes, trace, &self.sequences))]
    }
}

impl Encoder<FinishedTrace> for Tree {
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        let Self { sequences, is_full, .. } = self;
        let screen = Screen { width: self.width.load(Ordering::Relaxed), sequences, is_full: *is_full };
        vec![payload(batch, |trace, bytes| screen::write(bytes, trace, &screen))]
    }
}

impl Encoder<FinishedTrace> for JsonLines {
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        vec![payload(batch, |trace, bytes| json::write(bytes, trace, &self.resource))]
    }
}

fn payload(batch: &[Arc<FinishedTrace>], write: impl Fn(&FinishedTrace, &mut Vec<u8>)) -> Payload {
    let mut bytes = Vec::new();
    batch.iter().for_each(|trace| write(trace, &mut bytes));
    let items = batch.iter().map(|trace| trace.spans.len()).sum();
    Payload { bytes, items, traces: batch.iter().map(|trace| trace.trace_id).collect(), trimmed: None }
}

impl Transport for Stdout {
    fn before_encoding(&self) {
        // The user may have changed the size of the window.
        if let Some(width) = &self.width {
            width.store(stdout::width(), Ordering::Relaxed);
        }
    }

    fn deliver(&mut self, payload: &Payload, _: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        calls.push(RecordedCall::one_way("standard output".into()));
        match stdout::write(&payload.bytes) {
            Ok(()) => Outcome::Delivered,
            Err(error) => {
                let what = Message::new(format!("{error}: standard output"));
                let next = "set enabled = false in [console] if no program reads it";
                Outcome::Refused(Problem::new(error.kind().to_string(), what.next(next)))
            }
        }
    }

    fn max_elapsed_time(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::settings::sample_resource;
    use crate::terminal::Palette;
    use crate::trace::sample;
    use crate::trace::span::SpanData;

    fn piped() -> Lines {
        Lines { sequences: Sequences::new(&Palette::PLAIN) }
    }

    fn printed(encoder: &dyn Encoder<FinishedTrace>, trace: FinishedTrace) -> Vec<u8> {
        encoder.encode(&[Arc::new(trace)], 0).remove(0).bytes
    }

    #[test]
    fn a_tree_is_a_line_a_span() {
        golden::check("console_tree.txt", &printed(&piped(), sample::trace()));
    }

    #[test]
    fn json_is_an_object_a_line_with_the_fields_of_pythons_exporter() {
        let lines = printed(&JsonLines { resource: sample_resource() }, sample::trace());
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
        let tree = String::from_utf8(printed(&piped(), trace)).unwrap();
        assert_eq!(tree.lines().count(), 3, "{tree}");
        assert_eq!(tree.matches("orphan").count(), 1, "{tree}");
    }

    #[test]
    fn what_a_client_sent_cannot_move_the_cursor() {
        let mut trace = sample::trace();
        trace.spans[0].name = "GET /\u{1b}[2J".into();
        let tree = String::from_utf8(printed(&piped(), trace)).unwrap();
        assert!(!tree.contains('\u{1b}') && !tree.contains('\u{1}'), "{tree}");
    }
}

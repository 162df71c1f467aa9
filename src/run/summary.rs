//! Texts printed at start-up and at the end.

use std::net::SocketAddr;

use anstyle::Style;

use super::config::Configuration;
use crate::client::Client;
use crate::delivery::{BatchProcessor, Pipeline, Plan, SpoolView, State, Totals};
use crate::logging::{self, say};
use crate::settings::{Finding, Severity};
use crate::terminal::{Palette, Terminal, columns};

/// Prints the address, the state of each backend with its reason, and the findings.
pub(super) fn print(
    address: SocketAddr,
    configuration: &Configuration,
    notifications: Option<&Client>,
    pipeline: &Pipeline,
) {
    let Configuration { settings, findings, file, .. } = configuration;
    let terminal = logging::terminal();
    let name = terminal.palette.name;
    let file = file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("{name}cruddur{name:#} {version} ");
    let service = &settings.service_name.value;
    let first = format!("listening on http://{address} as {service} (settings: {file})");
    terminal.hang(&mut text, "cruddur  ".len() + version.len(), &first);
    let url = format!("http://{address}/");
    let mut rows: Vec<Row<'_>> = pipeline.processors().iter().map(|processor| Row::new(&processor.plan)).collect();
    let state = if settings.page.value { State::On } else { State::Off };
    rows.push(Row { name: "page", state, destination: &url, reason: "" });
    let widest = rows.iter().map(|row| columns(row.destination)).max().unwrap_or(0);
    rows.iter().for_each(|row| row.write(&mut text, &terminal, widest));
    if let Some(client) = notifications {
        text.push_str("  ");
        terminal.hang(&mut text, 2, &format!("notifications come from {client}"));
    }
    for finding in findings.iter().chain(pipeline.findings()) {
        write_finding(&mut text, &terminal, 2, finding);
    }
    say(text.trim_end());
}

/// Writes a finding with its severity in its style, from this column on.
pub(super) fn write_finding(out: &mut String, terminal: &Terminal, indent: usize, finding: &Finding) {
    let style = match finding.severity {
        Severity::Note => terminal.palette.dim,
        Severity::Warning => terminal.palette.warning,
        Severity::Error => terminal.palette.error,
    };
    let line = finding.to_string();
    let (severity, text) = line.split_once(' ').unwrap_or((&line, ""));
    out.push_str(&format!("{:indent$}{style}{severity}{style:#} ", ""));
    terminal.hang(out, indent + severity.len() + 1, text);
}

/// Line about a backend or the page.
struct Row<'a> {
    name: &'a str,
    state: State,
    destination: &'a str,
    reason: &'a str,
}

impl<'a> Row<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self { name: plan.name, state: plan.state, destination: &plan.destination, reason: &plan.reason }
    }

    /// Writes the row. On a terminal, the reason is under the destination if there is no room for
    /// both.
    fn write(&self, out: &mut String, terminal: &Terminal, widest_destination: usize) {
        let Palette { ok, warning, dim, name, .. } = terminal.palette;
        let Self { state, destination, reason, .. } = *self;
        let (style, text) = match state {
            State::On => (ok, Style::new()),
            State::Waiting => (warning, Style::new()),
            State::Off => (dim, dim),
        };
        out.push_str(&format!(
            "  {name}{:<10}{name:#} {style}{:<8}{style:#} {text}{destination}",
            self.name,
            state.as_str()
        ));
        if !reason.is_empty() {
            let widest = if terminal.width.is_some() { widest_destination + 1 } else { DESTINATION_WIDTH };
            if terminal.width.is_some_and(|width| width < DESTINATION_COLUMN + widest + MIN_REASON) {
                out.push_str(&format!("\n{:DESTINATION_COLUMN$}", ""));
                terminal.hang(out, DESTINATION_COLUMN, reason);
            } else {
                let gap = widest.saturating_sub(columns(destination)).max(1);
                out.push_str(&format!("{:gap$}", ""));
                terminal.hang(out, DESTINATION_COLUMN + widest, reason);
            }
        } else {
            out.push('\n');
        }
        out.push_str(&format!("{text:#}"));
    }
}

const DESTINATION_COLUMN: usize = 22;
/// Width of the destination and the blank after it, in a pipe or a file.
const DESTINATION_WIDTH: usize = 37;
/// Columns that a reason needs on the line of its destination.
const MIN_REASON: usize = 40;

/// Prints the final counts, one line for each backend that is on or has handled anything, and one more
/// for what it has stored on disk.
pub(super) fn print_counts(processors: &[BatchProcessor]) {
    for processor in processors {
        let Totals { delivered, refused, unconfirmed, stored, dropped, sampled_out, not_sent, .. } =
            processor.stats.totals();
        let (name, unit) = (processor.plan.name, processor.stats.unit);
        let all = delivered + refused + unconfirmed + stored + dropped + sampled_out;
        if processor.is_on() || all > 0 {
            // Rare counts are named only if they are not zero.
            let rare = |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
            let (elsewhere, on_disk) = (rare(unconfirmed, "unconfirmed"), rare(stored, "stored"));
            let more =
                if not_sent > 0 { format!("; {not_sent} more while the backend was not on") } else { String::new() };
            say(&format!(
                "{name}: {delivered} delivered, {refused} refused, {dropped} dropped, {sampled_out} sampled out{elsewhere}{on_disk}, of {all} {unit}{more}"
            ));
        }
        if let Some(SpoolView { text, .. }) = processor.spool.as_ref().map(|spool| spool.view())
            && !text.is_empty()
        {
            say(&format!("{name}: {text}"));
        }
    }
}

//! What is said at start, and at the end.

use std::net::SocketAddr;
use std::path::Path;

use crate::delivery::{Lane, Pipeline, Totals};
use crate::http::client::Client;
use crate::logging::say;
use crate::settings::{Finding, Settings};

/// Where it listens, what is on, what is off and why, and what is remarkable about the settings.
pub(super) fn print(
    address: SocketAddr,
    file: Option<&Path>,
    settings: &Settings,
    notifications: Option<&Client>,
    findings: &[Finding],
    pipeline: &Pipeline,
) {
    let file = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let mut text = format!(
        "cruddur {} listening on http://{address} as {} (settings: {file})\n",
        env!("CARGO_PKG_VERSION"),
        settings.service_name.value
    );
    for lane in pipeline.lanes() {
        text.push_str(&format!("  {:<10} {:<8} {:<36} {}\n", lane.name, lane.state, lane.destination, lane.reason));
    }
    let page = if settings.page.value { "on" } else { "off" };
    text.push_str(&format!("  {:<10} {page:<8} http://{address}/\n", "page"));
    if let Some(client) = notifications {
        text.push_str(&format!("  notifications come from {client}\n"));
    }
    let of_lanes = pipeline.lanes().iter().flat_map(|lane| &lane.findings);
    for finding in findings.iter().chain(of_lanes) {
        text.push_str(&format!("  {finding}\n"));
    }
    say(text.trim_end());
}

/// What became of everything, a line for each backend that was on, be it for a while.
pub(super) fn print_counts(lanes: &[Lane]) {
    for lane in lanes {
        let Totals { delivered, refused, dropped, sampled_out, not_sent, .. } = lane.ledger.totals();
        let (name, unit, all) = (lane.name, lane.ledger.unit(), delivered + refused + dropped + sampled_out);
        if lane.state == "on" || all > 0 {
            let more = if not_sent > 0 { format!("; {not_sent} more came while it was not on") } else { String::new() };
            say(&format!(
                "{name}: {delivered} delivered, {refused} refused, {dropped} dropped, {sampled_out} sampled out, of {all} {unit}{more}"
            ));
        }
    }
}

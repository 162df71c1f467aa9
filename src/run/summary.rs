//! Texts printed at start-up and at the end.

use std::net::SocketAddr;

use super::config::Configuration;
use crate::client::Client;
use crate::delivery::{BatchProcessor, Pipeline, Totals};
use crate::logging::say;

/// Prints the address, the state of each backend with its reason, and the findings.
pub(super) fn print(
    address: SocketAddr,
    configuration: &Configuration,
    notifications: Option<&Client>,
    pipeline: &Pipeline,
) {
    let Configuration { settings, findings, file, .. } = configuration;
    let file = file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let mut text = format!(
        "cruddur {} listening on http://{address} as {} (settings: {file})\n",
        env!("CARGO_PKG_VERSION"),
        settings.service_name.value
    );
    for processor in pipeline.processors() {
        text.push_str(&format!(
            "  {:<10} {:<8} {:<36} {}\n",
            processor.plan.name,
            processor.plan.state.as_str(),
            processor.plan.destination,
            processor.plan.reason
        ));
    }
    let page = if settings.page.value { "on" } else { "off" };
    text.push_str(&format!("  {:<10} {page:<8} http://{address}/\n", "page"));
    if let Some(client) = notifications {
        text.push_str(&format!("  notifications come from {client}\n"));
    }
    for finding in findings.iter().chain(pipeline.findings()) {
        text.push_str(&format!("  {finding}\n"));
    }
    say(text.trim_end());
}

/// Prints the final counts, one line for each backend that is on or has handled anything.
pub(super) fn print_counts(processors: &[BatchProcessor]) {
    for processor in processors {
        let Totals { delivered, refused, unconfirmed, dropped, sampled_out, not_sent, .. } = processor.stats.totals();
        let (name, unit, all) =
            (processor.plan.name, processor.stats.unit, delivered + refused + unconfirmed + dropped + sampled_out);
        if processor.is_on() || all > 0 {
            let more =
                if not_sent > 0 { format!("; {not_sent} more while the backend was not on") } else { String::new() };
            // Rare, so the line names it only if it has happened.
            let elsewhere = if unconfirmed > 0 { format!(", {unconfirmed} unconfirmed") } else { String::new() };
            say(&format!(
                "{name}: {delivered} delivered, {refused} refused, {dropped} dropped, {sampled_out} sampled out{elsewhere}, of {all} {unit}{more}"
            ));
        }
    }
}

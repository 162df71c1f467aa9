//! `GET /telemetry/status`: what is on, what is off and why, and what became of everything.

use std::collections::BTreeMap;

use chrono::Utc;
use serde::Serialize;

use super::{Page, rfc3339};
use crate::delivery::{BatchProcessor, Pipeline};
use crate::settings::Finding;

/// ```text
/// {"service_name":"backend-flask","version":"0.1.0","started_at":"2026-11-22T10:00:00Z","requests":3,"last_request":3,
///  "backends":{"honeycomb":{"state":"on","reason":"...","endpoint":"https://api.honeycomb.io/v1/traces","unit":"spans",
///    "queued":0,"queue_capacity":2048,"batch":512,"next_flush_ms":null,"deliveries":2,"in_flight":0,"delivered":6,"refused":0,"dropped":0,"sampled_out":0,"not_sent":0,"last_error":null}}}
/// ```
#[derive(Serialize)]
pub(super) struct StatusView<'p> {
    service_name: &'p str,
    version: &'static str,
    started_at: String,
    requests: u64,
    /// The number of the last request in `GET /telemetry/traces`.
    last_request: u64,
    /// What is remarkable about the settings that belong to no backend: `[{"severity":"warning","text":"..."}]`.
    findings: &'p [Finding],
    backends: BTreeMap<&'static str, BackendStatus<'p>>,
}

#[derive(Serialize)]
struct BackendStatus<'p> {
    state: &'static str,
    reason: &'p str,
    findings: &'p [Finding],
    endpoint: &'p str,
    unit: &'static str,
    /// Of `unit`, as all that follows.
    queued: usize,
    queue_capacity: usize,
    /// What makes a full batch.
    batch: usize,
    /// How long what waits will wait at most; null if nothing does.
    next_flush_ms: Option<u64>,
    /// Payloads so far.
    deliveries: u64,
    /// Changes when anything in `GET /telemetry/deliveries` does.
    deliveries_changed: u64,
    in_flight: u64,
    delivered: u64,
    refused: u64,
    dropped: u64,
    sampled_out: u64,
    not_sent: u64,
    /// Documents that went without a part of theirs, to fit.
    trimmed: u64,
    /// Which sampler or which sampling rules are in force.
    sampling: String,
    /// Since when nothing gets through; null while all is well.
    failing_since: Option<String>,
    last_error: Option<LastErrorJson>,
}

#[derive(Serialize)]
struct LastErrorJson {
    text: String,
    at: String,
}

impl<'p> StatusView<'p> {
    pub(super) fn of(page: &'p Page, pipeline: &'p Pipeline) -> Self {
        let processors = pipeline.processors().iter();
        Self {
            service_name: &page.service_name,
            version: env!("CARGO_PKG_VERSION"),
            started_at: rfc3339(page.started_at),
            requests: page.requests.get(),
            last_request: page.recent.borrow().last_number(),
            findings: &page.findings,
            backends: processors
                .map(|processor| (processor.name, BackendStatus::of(processor, &page.sampler)))
                .collect(),
        }
    }
}

impl<'p> BackendStatus<'p> {
    fn of(processor: &'p BatchProcessor, sampler: &str) -> Self {
        let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
        let totals = processor.stats.totals();
        Self {
            state: processor.state.as_str(),
            reason: &processor.reason,
            findings: &processor.findings,
            endpoint: &processor.destination,
            unit: processor.stats.unit(),
            queued: processor.queued(),
            queue_capacity: processor.limits.queue,
            batch: processor.limits.batch,
            next_flush_ms: processor.due_in().map(|due| u64::try_from(due.as_millis()).unwrap_or(u64::MAX)),
            deliveries: processor.stats.deliveries.begun(),
            deliveries_changed: processor.stats.deliveries.changes(),
            in_flight: totals.in_flight,
            delivered: totals.delivered,
            refused: totals.refused,
            dropped: totals.dropped,
            sampled_out: totals.sampled_out,
            not_sent: totals.not_sent,
            trimmed: totals.trimmed,
            sampling: processor.sampler.as_ref().map_or_else(|| sampler.to_owned(), |own| own.describe(now)),
            failing_since: processor.stats.failing_since().map(rfc3339),
            last_error: processor
                .stats
                .last_error()
                .map(|error| LastErrorJson { text: error.message.to_string(), at: rfc3339(error.at) }),
        }
    }
}

//! `GET /telemetry/status`: what is on, what is off and why, and what became of everything.

use std::collections::BTreeMap;

use chrono::Utc;
use serde::Serialize;

use super::{Page, rfc3339};
use crate::delivery::Lane;
use crate::settings::Finding;

/// ```text
/// {"service_name":"backend-flask","version":"0.1.0","started_at":"2026-11-22T10:00:00Z","requests":3,"last_request":3,
///  "backends":{"honeycomb":{"state":"on","reason":"...","endpoint":"https://api.honeycomb.io/v1/traces","unit":"spans",
///    "queued":0,"queue_capacity":2048,"batch":512,"next_flush_ms":null,"deliveries":2,"in_flight":0,"delivered":6,"refused":0,"dropped":0,"sampled_out":0,"not_sent":0,"last_error":null}}}
/// ```
#[derive(Serialize)]
pub(super) struct Status<'p> {
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

impl<'p> Status<'p> {
    pub(super) fn of(page: &'p Page) -> Self {
        let lanes = page.pipeline.lanes().iter();
        Self {
            service_name: &page.service_name,
            version: env!("CARGO_PKG_VERSION"),
            started_at: rfc3339(page.started_at),
            requests: page.requests.get(),
            last_request: page.recent.borrow().last_number(),
            findings: &page.findings,
            backends: lanes.map(|lane| (lane.name, BackendStatus::of(lane, &page.sampler))).collect(),
        }
    }
}

impl<'p> BackendStatus<'p> {
    fn of(lane: &'p Lane, sampler: &str) -> Self {
        let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
        let totals = lane.ledger.totals();
        Self {
            state: lane.state,
            reason: &lane.reason,
            findings: &lane.findings,
            endpoint: &lane.destination,
            unit: lane.ledger.unit(),
            queued: lane.queued(),
            queue_capacity: lane.limits.queue,
            batch: lane.limits.batch,
            next_flush_ms: lane.due_in().map(|due| u64::try_from(due.as_millis()).unwrap_or(u64::MAX)),
            deliveries: lane.ledger.deliveries.begun(),
            deliveries_changed: lane.ledger.deliveries.changes(),
            in_flight: totals.in_flight,
            delivered: totals.delivered,
            refused: totals.refused,
            dropped: totals.dropped,
            sampled_out: totals.sampled_out,
            not_sent: totals.not_sent,
            trimmed: totals.trimmed,
            sampling: lane.sampler.as_ref().map_or_else(|| sampler.to_owned(), |own| own.state(now)),
            failing_since: lane.ledger.failing_since().map(rfc3339),
            last_error: lane.ledger.last_error().map(|error| LastErrorJson { text: error.text, at: rfc3339(error.at) }),
        }
    }
}

//! `GET /telemetry/status`: the state of each backend with its reason, and all counts.

use std::collections::BTreeMap;

use chrono::Utc;
use serde::Serialize;

use super::Page;
use crate::delivery::{BatchProcessor, Pipeline, SpoolView, Totals};
use crate::settings::Finding;
use crate::text::time;

/// The whole status, here shortened:
///
/// ```text
/// {"service_name":"backend-flask","version":"0.1.0","started_at":"2026-11-22T10:00:00.000Z",
///  "requests":3,"last_request":3,"findings":[],
///  "backend_order":["honeycomb"],
///  "backends":{"honeycomb":{"state":"on","reason":"...","findings":[],
///    "endpoint":"https://api.honeycomb.io/v1/traces","unit":"spans",
///    "queued":0,"queue_capacity":2048,"batch":512,"next_flush_ms":null,
///    "deliveries":2,"in_flight":0,"delivered":6,"refused":0,"unconfirmed":0,"stored":0,
///    "dropped":0,"sampled_out":0,"not_sent":0,"sampling":"parentbased_always_on","last_error":null,
///    "spool":{"directory":"spool/honeycomb","batches":0,"items":0,"bytes":0,"max_bytes":67108864,
///      "oldest":null,"sent_per_second":0.0,"sent":0,"rejected":0,"expired":0,"lost":0,
///      "text":""}}},
///  "process":{"descriptors":{"used":31,"soft":1024,"hard":524288},"threads":14,"memory_kb":5432,
///    "connections":2,"connections_closed":{"idle":0,"greedy":0,"pipelining":0,"not_reading":0,
///    "over_cap":0,"memory":0},"renewals":0,"last_renewal":null}}
/// ```
#[derive(Serialize)]
pub(super) struct StatusView<'p> {
    service_name: &'p str,
    version: &'static str,
    started_at: String,
    requests: u64,
    /// The number of the last request in `GET /telemetry/traces`.
    last_request: u64,
    /// Findings about settings that belong to no backend: `[{"severity":"warning","text":"..."}]`.
    findings: &'p [Finding],
    /// Names of the backends in the order of the pipeline. The page shows them in this order.
    backend_order: Vec<&'static str>,
    backends: BTreeMap<&'static str, BackendView<'p>>,
    process: ProcessView,
}

/// State of the process, and of the connections to it. `null` where the system does not tell.
#[derive(Debug, Default, Serialize)]
pub struct ProcessView {
    /// Open descriptors and their limits.
    pub descriptors: DescriptorsView,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Resident memory.
    pub memory_kb: Option<u64>,
    /// Number of open connections.
    pub connections: Option<usize>,
    /// Number of connections that the program has closed, by reason.
    pub connections_closed: BTreeMap<&'static str, u64>,
    /// Number of times that the process has replaced itself.
    pub renewals: u32,
    /// Reason of the last time.
    pub last_renewal: Option<String>,
}

/// Open descriptors and their limits.
#[derive(Debug, Default, Serialize)]
pub struct DescriptorsView {
    /// Number of open descriptors.
    pub used: Option<usize>,
    /// Limit in force.
    pub soft: Option<u64>,
    /// Limit to which the process could raise it.
    pub hard: Option<u64>,
}

/// The state and the counts of one backend.
#[derive(Serialize)]
struct BackendView<'p> {
    state: &'static str,
    reason: &'p str,
    findings: &'p [Finding],
    endpoint: &'p str,
    unit: &'static str,
    /// Number of queued spans or lines, whichever `unit` names.
    queued: usize,
    queue_capacity: usize,
    /// Size of a full batch, in `unit`.
    batch: usize,
    /// Time until the queued items are sent at the latest; null if the queue is empty.
    next_flush_ms: Option<u64>,
    /// Number of payloads so far.
    deliveries: u64,
    /// A number that changes whenever `GET /telemetry/deliveries` does.
    deliveries_changed: u64,
    /// Counted in `unit`, except for `trimmed`: documents that were shortened to fit.
    #[serde(flatten)]
    totals: Totals,
    /// The sampler or the sampling rules in force.
    sampling: String,
    /// Payloads on disk; null if the backend stores none.
    spool: Option<SpoolView>,
    /// Time since which every delivery has failed; null if the last one succeeded.
    failing_since: Option<String>,
    last_error: Option<LastErrorView>,
}

/// The last problem of a backend, with the time when it happened.
#[derive(Serialize)]
struct LastErrorView {
    text: String,
    at: String,
}

impl<'p> StatusView<'p> {
    pub(super) fn new(page: &'p Page, pipeline: &'p Pipeline, process: ProcessView) -> Self {
        let processors = pipeline.processors();
        Self {
            service_name: &page.service_name,
            version: env!("CARGO_PKG_VERSION"),
            started_at: time::millis(page.started_at).to_string(),
            requests: page.requests.get(),
            last_request: page.recent.borrow().last_number(),
            findings: &page.findings,
            backend_order: processors.iter().map(|processor| processor.plan.name).collect(),
            backends: processors
                .iter()
                .map(|processor| (processor.plan.name, BackendView::new(processor, &page.sampler)))
                .collect(),
            process,
        }
    }
}

impl<'p> BackendView<'p> {
    fn new(processor: &'p BatchProcessor, sampler: &str) -> Self {
        let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
        Self {
            state: processor.plan.state.as_str(),
            reason: &processor.plan.reason,
            findings: &processor.plan.findings,
            endpoint: &processor.plan.destination,
            unit: processor.stats.unit,
            queued: processor.queued(),
            queue_capacity: processor.plan.limits.queue,
            batch: processor.plan.limits.batch,
            next_flush_ms: processor.due_in().map(|due| u64::try_from(due.as_millis()).unwrap_or(u64::MAX)),
            deliveries: processor.stats.deliveries.begun(),
            deliveries_changed: processor.stats.deliveries.changes(),
            totals: processor.stats.totals(),
            sampling: processor.plan.sampler.as_ref().map_or_else(|| sampler.to_owned(), |own| own.describe(now)),
            spool: processor.spool.as_ref().map(|spool| spool.view()),
            failing_since: processor.stats.failing_since().map(|time| time::millis(time).to_string()),
            last_error: processor
                .stats
                .last_error()
                .map(|error| LastErrorView { text: error.message.to_string(), at: time::millis(error.at).to_string() }),
        }
    }
}

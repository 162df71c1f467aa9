//! The page `GET /` and its data, the JSON of `GET /telemetry/...`.
//!
//! Most trace viewers are part of a receiver and show the spans that arrived. This one is part of
//! the sender, so it also shows the spans that were not sent, with the reason.
//!
//! The page is a reader: [`crate::http`] passes every finished trace to [`Page::observe`] and turns
//! the returned bytes into responses. Requests and settings are kept here; deliveries and counts
//! are read from the [`Pipeline`]. Each type whose name ends in `View` is the shape of one JSON
//! object.

pub mod access;
mod deliveries;
pub mod files;
mod recent;
mod status;
mod traces;

use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::access::Access;
use self::recent::Recent;
use crate::delivery::Pipeline;
use crate::logging::LogLine;
use crate::settings::{Finding, Settings, Severity};
use crate::trace::FinishedTrace;

pub use status::{DescriptorsView, ProcessView};

/// The last requests, and the settings that decide who may see them.
pub struct Page {
    recent: RefCell<Recent>,
    requests: Cell<u64>,
    started_at: DateTime<Utc>,
    service_name: String,
    /// Name of the sampler, as in `OTEL_TRACES_SAMPLER`.
    sampler: String,
    access: Access,
    /// Findings about settings that belong to no backend.
    findings: Vec<Finding>,
}

impl Page {
    /// A page without any requests yet.
    pub fn new(settings: &Settings, findings: Vec<Finding>) -> Self {
        Self {
            recent: RefCell::default(),
            requests: Cell::default(),
            started_at: Utc::now(),
            service_name: settings.service_name.value.clone(),
            sampler: settings.sampler.to_string(),
            access: Access::new(settings),
            findings,
        }
    }

    /// Applies new settings. Requests and the time of the start are kept.
    pub fn settings_changed(&mut self, settings: &Settings, findings: Vec<Finding>) {
        let Self { recent, requests, started_at, .. } = mem::replace(self, Self::new(settings, findings));
        (self.recent, self.requests, self.started_at) = (recent, requests, started_at);
    }

    /// Findings about settings that belong to no backend.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Records why the changed settings file was refused. It replaces an earlier refusal.
    pub fn settings_refused(&mut self, finding: Finding) {
        self.findings.retain(|finding| finding.severity != Severity::Error);
        self.findings.insert(0, finding);
    }

    /// Counts a request to the application. Health checks and requests for telemetry are not
    /// counted.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// True if the page is on. Only then [`Self::observe`] is called.
    pub fn is_on(&self) -> bool {
        self.access.enabled
    }

    /// Keeps a finished trace of `size` bytes in memory, and the lines that were logged during the
    /// request.
    pub fn observe(&self, trace: Arc<FinishedTrace>, size: usize, lines: Vec<Arc<LogLine>>) {
        self.recent.borrow_mut().push(trace, size, lines);
    }

    /// Rules for the clients of the page.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The JSON of `GET /telemetry/status`.
    ///
    /// # Errors
    ///
    /// A value cannot be written as JSON. The same holds for all methods below.
    pub fn status(&self, pipeline: &Pipeline, process: ProcessView) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&status::StatusView::new(self, pipeline, process))
    }

    /// The JSON of `GET /telemetry/traces`: the requests whose number is greater than `since`.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::status`].
    pub fn traces(&self, since: u64) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&traces::RequestListView::new(&self.recent.borrow(), since))
    }

    /// The JSON of `GET /telemetry/traces/{id}`, where `id` is in the spelling of W3C or of X-Ray.
    /// `None` if the trace is unknown or no longer kept.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::status`].
    pub fn trace(&self, pipeline: &Pipeline, id: &str) -> serde_json::Result<Option<Vec<u8>>> {
        traces::TraceView::find(&self.recent.borrow(), pipeline, id).map(|trace| serde_json::to_vec(&trace)).transpose()
    }
}

/// The JSON of `GET /telemetry/deliveries`: the last payloads of every backend.
///
/// # Errors
///
/// The same as for [`Page::status`].
pub fn deliveries(pipeline: &Pipeline) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&deliveries::DeliveryListView::new(pipeline))
}

/// The JSON of `GET /telemetry/deliveries/{id}`, where `id` is for instance `honeycomb-12`. `None`
/// if the delivery is unknown or no longer kept.
///
/// # Errors
///
/// The same as for [`Page::status`].
pub fn delivery(pipeline: &Pipeline, id: &str) -> serde_json::Result<Option<Vec<u8>>> {
    deliveries::DeliveryView::find(pipeline, id).map(|delivery| serde_json::to_vec(&delivery)).transpose()
}

//! What the program knows about itself, for the page `GET /` and for the JSON that it is made of, `GET /telemetry/...`.
//!
//! Every trace viewer stands at the receiving end and shows what arrived. This one stands at the sending end, and knows
//! also what did not leave, and why. It only looks: [`crate::http`] shows it every finished trace, and makes responses of what
//! it returns.

mod deliveries;
pub mod files;
mod recent;
mod status;
mod traces;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use self::recent::Recent;
use crate::delivery::Pipeline;
use crate::logging::LogLine;
use crate::settings::{Finding, Settings, Severity};
use crate::trace::FinishedTrace;

/// What is shown, and to whom.
pub struct Page {
    recent: RefCell<Recent>,
    requests: Cell<u64>,
    started_at: DateTime<Utc>,
    service_name: String,
    /// The sampler of OpenTelemetry, by its name.
    sampler: String,
    enabled: bool,
    allow_remote: bool,
    /// What is remarkable about the settings that belong to no backend.
    findings: Vec<Finding>,
}

/// Who may not look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// Nobody may: the page is off.
    Off,
    /// Only this machine may.
    Remote,
}

impl Page {
    /// A page that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &Settings, findings: Vec<Finding>) -> Self {
        let mut page = Self {
            recent: RefCell::default(),
            requests: Cell::new(0),
            started_at: Utc::now(),
            service_name: String::new(),
            sampler: String::new(),
            enabled: false,
            allow_remote: false,
            findings: Vec::new(),
        };
        page.settings_changed(settings, findings);
        page
    }

    /// Goes over to other settings.
    pub fn settings_changed(&mut self, settings: &Settings, findings: Vec<Finding>) {
        self.service_name.clone_from(&settings.service_name.value);
        self.sampler = settings.sampler.to_string();
        (self.enabled, self.allow_remote) = (settings.page.value, settings.page_for_all.value);
        self.findings = findings;
    }

    /// What is remarkable about the settings that belong to no backend.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The settings file as it is now was not taken, for this reason.
    pub fn settings_refused(&mut self, finding: Finding) {
        self.findings.retain(|finding| finding.severity != Severity::Error);
        self.findings.insert(0, finding);
    }

    /// Counts a request to the application; those about its health or its telemetry do not count.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// True if the page is on: then it wants to see what happens.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.enabled
    }

    /// Remembers a finished trace and the lines that were logged meanwhile, if the page is on.
    pub fn observe(&self, trace: Arc<FinishedTrace>, lines: Vec<Arc<LogLine>>) {
        if self.enabled {
            self.recent.borrow_mut().push(trace, lines);
        }
    }

    /// Traces hold what clients sent, so they are shown to this machine only, unless the settings say otherwise.
    ///
    /// # Errors
    ///
    /// This client may not look.
    pub fn admit(&self, is_local: bool) -> Result<(), Denied> {
        match (self.enabled, is_local || self.allow_remote) {
            (false, _) => Err(Denied::Off),
            (true, false) => Err(Denied::Remote),
            (true, true) => Ok(()),
        }
    }

    /// The JSON of `GET /telemetry/status`.
    ///
    /// # Errors
    ///
    /// A value cannot be written as JSON; this and all below.
    pub fn status(&self, pipeline: &Pipeline) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&status::StatusView::of(self, pipeline))
    }

    /// The JSON of `GET /telemetry/traces`: the requests after the one of the number `since`.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn traces(&self, since: u64) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&traces::RequestList::of(&self.recent.borrow(), since))
    }

    /// The JSON of `GET /telemetry/traces/{id}`, where `id` is in either spelling; `None` if it is not known any more.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn trace(&self, pipeline: &Pipeline, id: &str) -> serde_json::Result<Option<Vec<u8>>> {
        traces::TraceView::of(&self.recent.borrow(), pipeline, id).map(|trace| serde_json::to_vec(&trace)).transpose()
    }
}

/// The JSON of `GET /telemetry/deliveries`: the last payloads of every backend.
///
/// # Errors
///
/// As [`Page::status`].
pub fn deliveries(pipeline: &Pipeline) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&deliveries::DeliveryList::of(pipeline))
}

/// The JSON of `GET /telemetry/deliveries/{id}`, where `id` is `honeycomb-12`; `None` if it is not known any more.
///
/// # Errors
///
/// As [`Page::status`].
pub fn delivery(pipeline: &Pipeline, id: &str) -> serde_json::Result<Option<Vec<u8>>> {
    deliveries::DeliveryDetail::of(pipeline, id).map(|delivery| serde_json::to_vec(&delivery)).transpose()
}

impl Denied {
    /// The HTTP status, and what to do about it.
    #[must_use]
    pub fn explain(self) -> (u16, &'static str) {
        match self {
            Self::Off => (404, "the page is off; set enabled = true under [page] in telemetry.toml"),
            Self::Remote => (
                403,
                "only this machine may look, as localhost, in HTTP/1.1 and through no proxy; set allow_remote = true under \
                 [page] in telemetry.toml, or CRUDDUR_PAGE_ALLOW_REMOTE=true",
            ),
        }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

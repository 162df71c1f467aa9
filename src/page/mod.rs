//! What the program knows about itself: a page for people, `GET /`, and the JSON that it is made of, `GET /telemetry/...`.
//!
//! Every trace viewer stands at the receiving end and shows what arrived. This one stands at the sending end, and knows
//! also what did not leave, and why. Nothing it is asked is traced.

mod deliveries;
pub mod files;
mod recent;
mod status;
mod traces;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use self::recent::Recent;
use crate::delivery::Pipeline;
use crate::http::answer::{Answer, Failure};
use crate::http::routes::Call;
use crate::logging::{self, LogLine};
use crate::settings::{Finding, Settings, Severity};
use crate::trace::FinishedTrace;

/// What is shown, and to whom.
pub struct Page {
    /// Where traces go.
    pub pipeline: Pipeline,
    recent: RefCell<Recent>,
    requests: Cell<u64>,
    started_at: DateTime<Utc>,
    service_name: String,
    /// The sampler of OpenTelemetry, by its name.
    sampler: String,
    enabled: bool,
    for_all: bool,
    /// What is remarkable about the settings that belong to no backend.
    findings: Vec<Finding>,
}

impl Page {
    /// A page about `pipeline`.
    #[must_use]
    pub fn new(pipeline: Pipeline, settings: &Settings, findings: Vec<Finding>) -> Self {
        let mut page = Self {
            pipeline,
            recent: RefCell::default(),
            requests: Cell::new(0),
            started_at: Utc::now(),
            service_name: String::new(),
            sampler: String::new(),
            enabled: false,
            for_all: false,
            findings: Vec::new(),
        };
        page.settings_changed(settings, findings);
        page
    }

    /// Goes over to other settings.
    pub fn settings_changed(&mut self, settings: &Settings, findings: Vec<Finding>) {
        self.service_name.clone_from(&settings.service_name.value);
        self.sampler = settings.sampler.to_string();
        (self.enabled, self.for_all) = (settings.page.value, settings.page_for_all.value);
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

    /// A request to the application came in; those about its health or its telemetry do not count. Its log lines are
    /// kept from here on, for [`Self::finished`].
    pub fn begun(&self) {
        self.requests.set(self.requests.get() + 1);
        if self.enabled {
            logging::keep_lines();
        }
    }

    /// A trace is complete: it is remembered here, and goes to every backend that wants it.
    pub fn finished(&self, trace: Arc<FinishedTrace>, lines: Vec<Arc<LogLine>>) {
        let size = trace.size();
        self.pipeline.submit(&trace, size);
        if self.enabled {
            self.recent.borrow_mut().push(trace, size, lines);
        }
    }

    /// Traces hold what clients sent, so they are shown to this machine only, unless the settings say otherwise.
    fn admit(&self, call: &Call<'_>) -> Result<(), Failure> {
        if !self.enabled {
            return Err(Failure::refused(404, "the page is off; set enabled = true under [page] in telemetry.toml"));
        }
        if !call.is_local && !self.for_all {
            let message = "only this machine may look, as localhost, in HTTP/1.1 and through no proxy; set allow_remote = true under [page] in telemetry.toml, or CRUDDUR_PAGE_ALLOW_REMOTE=true";
            return Err(Failure::refused(403, message));
        }
        Ok(())
    }
}

/// `GET /telemetry/status`
///
/// # Errors
///
/// Not for this client.
pub fn status(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    json(&status::Status::of(call.page))
}

/// `GET /telemetry/traces`, with `?since=N` only what came after the request of that number.
///
/// # Errors
///
/// Not for this client, or `since` is no number.
pub fn traces(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    let since = form_urlencoded::parse(call.query.as_bytes()).find(|(key, _)| key == "since");
    let since = match since.map(|(_, text)| text.parse()) {
        None => 0,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            return Err(Failure::refused(400, "since must be the number of a request, for instance ?since=7"));
        }
    };
    json(&traces::List::of(&call.page.recent.borrow(), since))
}

/// `GET /telemetry/traces/{id}`
///
/// # Errors
///
/// Not for this client, or no such trace.
pub fn trace(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    match traces::Trace::of(&call.page.recent.borrow(), &call.page.pipeline, &call.parameter) {
        Some(trace) => json(&trace),
        None => Err(Failure::refused(404, "no such trace among the last 200; look at GET /telemetry/traces")),
    }
}

/// `GET /telemetry/deliveries`
///
/// # Errors
///
/// Not for this client.
pub fn deliveries(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    json(&deliveries::List::of(&call.page.pipeline))
}

/// `GET /telemetry/deliveries/{id}`, where an id is `honeycomb-12`.
///
/// # Errors
///
/// Not for this client, or no such delivery.
pub fn delivery(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    match deliveries::Whole::of(&call.page.pipeline, &call.parameter) {
        Some(delivery) => json(&delivery),
        None => {
            let message = "no such delivery among the last 50 of a backend; look at GET /telemetry/deliveries";
            Err(Failure::refused(404, message))
        }
    }
}

/// What is said about clients and their requests is for no cache, and for no other page.
fn json(value: &impl Serialize) -> Result<Answer, Failure> {
    let headers = &[("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];
    Ok(Answer { headers, ..Answer::json(value)? })
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

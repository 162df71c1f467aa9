//! What the program knows about itself, as JSON: `GET /telemetry/status` and `GET /telemetry/traces`.
//!
//! Every trace viewer stands at the receiving end and shows what arrived. This one stands at the sending end, and knows
//! also what did not leave, and why. Nothing it is asked is traced.

mod recent;
mod status;
mod traces;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::recent::Recent;
use crate::delivery::Pipeline;
use crate::http::answer::{Answer, Failure};
use crate::http::routes::Call;
use crate::settings::Settings;
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
}

impl Page {
    /// A page about `pipeline`.
    #[must_use]
    pub fn new(pipeline: Pipeline, settings: &Settings) -> Self {
        Self {
            pipeline,
            recent: RefCell::default(),
            requests: Cell::new(0),
            started_at: Utc::now(),
            service_name: settings.service_name.value.clone(),
            sampler: settings.sampler.to_string(),
            enabled: settings.page.value,
            for_all: settings.page_for_all.value,
        }
    }

    /// A request to the application came in; those about its health or its telemetry do not count.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// A trace is complete: it is remembered here, and goes to every backend that wants it.
    pub fn finished(&self, trace: Arc<FinishedTrace>) {
        self.pipeline.submit(&trace);
        if self.enabled {
            self.recent.borrow_mut().push(trace);
        }
    }

    /// Traces hold what clients sent, so they are shown to this machine only, unless the settings say otherwise.
    fn admit(&self, call: &Call<'_>) -> Result<(), Failure> {
        if !self.enabled {
            return Err(Failure::refused(404, "the page is off; set enabled = true under [page] in telemetry.toml"));
        }
        if !call.is_local && !self.for_all {
            let message = "only this machine may look, as localhost and through no proxy; set allow_remote = true under [page] in telemetry.toml";
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
    Answer::json(&status::Status::of(call.page))
}

/// `GET /telemetry/traces`
///
/// # Errors
///
/// Not for this client.
pub fn traces(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    let recent = call.page.recent.borrow();
    Answer::json(&traces::List { traces: recent.newest_first().map(traces::Summary::of).collect() })
}

/// `GET /telemetry/traces/{id}`
///
/// # Errors
///
/// Not for this client, or no such trace.
pub fn trace(call: &Call<'_>) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    let recent = call.page.recent.borrow();
    match traces::Trace::of(&recent, &call.parameter) {
        Some(trace) => Answer::json(&trace),
        None => Err(Failure::refused(404, "no such trace among the last 200; look at GET /telemetry/traces")),
    }
}

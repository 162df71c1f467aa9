//! Stage 4: a batch becomes the bytes of one destination. One file per backend, one line for each in [`BACKENDS`].
//!
//! In: a batch of finished traces, or of log lines. Out: [`Payload`](crate::delivery::Payload)s, the exact bytes that are sent, and
//! an [`Outcome`](crate::delivery::Outcome) for each.
//!
//! A backend's file holds, in this order: what goes in and out with a few real bytes, its settings, its encoder, its
//! transport, its tests. Encoding is pure and cannot fail; the transport does the only I/O, through [`crate::wire`].

pub mod cloudwatch_logs;
pub mod console;
pub mod otlp_http;
pub mod xray_udp;

use crate::delivery::{Plan, State};
use crate::settings::{Findings, Section, Settings, Sources};
use crate::text::{Message, explanation};

/// All backends there are.
pub const BACKENDS: &[Plugin] = &[console::PLUGIN, otlp_http::PLUGIN, xray_udp::PLUGIN, cloudwatch_logs::PLUGIN];

/// The line in [`BACKENDS`]: all that the rest of the program knows of a backend.
pub struct Plugin {
    /// Its name, and its table in telemetry.toml.
    pub name: &'static str,
    /// Its settings.
    pub section: &'static Section,
    /// Reads its settings and decides whether it runs.
    pub plan: fn(&mut PlanContext<'_>) -> Result<Plan, Message>,
    /// Topic of `cruddur explain`: the bytes of a sample request, with a note on every field.
    pub(crate) explain: Option<fn() -> Vec<explanation::Section>>,
}

/// What a backend is planned from.
pub struct PlanContext<'a> {
    /// The environment and the file.
    pub sources: &'a Sources,
    /// The settings that belong to no backend.
    pub shared: &'a Settings,
    /// What is remarkable about the backend's own.
    pub findings: Findings,
}

/// Plans every backend.
///
/// # Errors
///
/// The file has an unknown key, or a value of the wrong type.
pub fn plans(sources: &Sources, shared: &Settings) -> Result<Vec<Plan>, Message> {
    let plan = |plugin: &Plugin| {
        let mut context = PlanContext { sources, shared, findings: Findings::default() };
        let mut plan = (plugin.plan)(&mut context)?;
        plan.findings = context.findings.into_vec();
        if !shared.recording {
            plan.deactivate(State::Off, "OTEL_SDK_DISABLED=true switches all telemetry off");
        }
        Ok(plan)
    };
    BACKENDS.iter().map(plan).collect()
}

//! Stage 4: a backend encodes a batch as the bytes of its destination, and sends them. There is one
//! file per backend, and one line for each in [`BACKENDS`].
//!
//! In: a batch of finished traces, or of log lines. Out: [`Payload`](crate::delivery::Payload)s,
//! the exact bytes that are sent, and an [`Outcome`](crate::delivery::Outcome) for each.
//!
//! The file of a backend contains, in this order: its input and output with a few real bytes, its
//! settings, its encoder, its transport, its tests. Encoding is pure and cannot fail. The transport
//! does the only I/O, through [`crate::wire`].

pub mod cloudwatch_logs;
pub mod console;
pub mod otlp_http;
pub mod xray_otlp;
pub mod xray_udp;

use crate::delivery::{Plan, State};
use crate::settings::{Finding, Findings, Section, Settings, Sources};
use crate::text::{Message, explanation};

/// All backends.
pub const BACKENDS: &[Plugin] =
    &[console::PLUGIN, otlp_http::PLUGIN, xray_udp::PLUGIN, xray_otlp::PLUGIN, cloudwatch_logs::PLUGIN];

/// Line in [`BACKENDS`]: everything that the rest of the program knows about a backend.
pub struct Plugin {
    /// Name of the backend, and of its table in telemetry.toml.
    pub name: &'static str,
    /// Settings of the backend.
    pub section: &'static Section,
    /// Reads the settings and decides whether the backend runs.
    pub plan: fn(&mut PlanContext<'_>) -> Result<Plan, Message>,
    /// Topic of `cruddur explain`: the bytes of a sample request, with a note on every field.
    pub(crate) explain: Option<fn() -> Vec<explanation::Section>>,
}

/// Input for the plan of a backend.
pub struct PlanContext<'a> {
    /// Environment and settings file.
    pub sources: &'a Sources,
    /// Settings that all backends share.
    pub shared: &'a Settings,
    /// Findings about the backend's own settings. The plan function adds to them.
    pub findings: Findings,
}

/// Makes the plan of every backend.
///
/// # Errors
///
/// The file has an unknown key, or a value of the wrong type.
pub fn plans(sources: &Sources, shared: &Settings) -> Result<Vec<Plan>, Message> {
    // Two backends may find the same fault, for instance in AWS_REGION. It is reported once.
    let mut reported: Vec<Finding> = Vec::new();
    let plan = |plugin: &Plugin| {
        let mut context = PlanContext { sources, shared, findings: Findings::default() };
        let mut plan = (plugin.plan)(&mut context)?;
        plan.findings = context.findings.into_vec();
        plan.findings.retain(|finding| !reported.contains(finding));
        reported.extend_from_slice(&plan.findings);
        if !shared.recording {
            plan.deactivate(State::Off, "OTEL_SDK_DISABLED=true switches all telemetry off");
        }
        Ok(plan)
    };
    BACKENDS.iter().map(plan).collect()
}

/// The plan that a backend makes of this telemetry.toml and environment, and its findings as text.
#[cfg(test)]
fn planned(
    plan: fn(&mut PlanContext<'_>) -> Result<Plan, Message>,
    toml: &str,
    env: crate::settings::Env,
) -> Result<(Plan, Vec<String>), Message> {
    use crate::settings::{Findings, Settings, Sources};

    let sources = Sources::from_text(toml, env)?;
    let (shared, _) = Settings::read(&sources, None, "an-instance", &mut Findings::default())?;
    let mut context = PlanContext { sources: &sources, shared: &shared, findings: Findings::default() };
    let plan = plan(&mut context)?;
    Ok((plan, context.findings.into_vec().iter().map(|finding| finding.message.to_string()).collect()))
}

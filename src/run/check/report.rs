//! Report of a check, as text or JSON.

use std::fmt;

use serde::Serialize;

use crate::settings::{Finding, Severity};
use crate::text::Message;

/// Report of a check.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// True if every backend that is on has accepted everything.
    pub(super) ok: bool,
    /// Path of the settings file, if there is one.
    pub(super) settings: Option<String>,
    pub(super) service_name: String,
    pub(super) service_name_from: String,
    /// Findings that belong to no backend.
    pub(super) findings: Vec<Finding>,
    pub(super) values: Vec<SettingValue>,
    pub(super) backends: Vec<BackendReport>,
}

/// Report on one backend.
#[derive(Debug, Default, Serialize)]
pub(super) struct BackendReport {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) destination: String,
    pub(super) reason: String,
    pub(super) values: Vec<SettingValue>,
    pub(super) sent: Option<SentItems>,
    pub(super) answers: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

/// A setting, for example `[honeycomb] timeout`, `10000`, `default`.
#[derive(Debug, Serialize)]
pub(super) struct SettingValue {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: String,
}

/// Summary of the sent payloads.
#[derive(Debug, Serialize)]
pub(super) struct SentItems {
    pub(super) items: usize,
    pub(super) unit: &'static str,
    pub(super) bytes: usize,
    pub(super) trace_id: String,
}

/// Result of checking one backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The destination accepted everything.
    Accepted,
    /// The destination rejected something. A retry would not help.
    Refused,
    /// The destination was unreachable, or refused for now.
    Failed,
    /// A required setting is missing.
    Waiting,
    /// The backend is off.
    #[default]
    Off,
    /// The backend is on, but only writes to the output of this process.
    Local,
}

impl Report {
    fn conclusion(&self) -> String {
        let is_remote = |backend: &&BackendReport| !matches!(backend.verdict, Verdict::Off | Verdict::Local);
        let on = self.backends.iter().filter(is_remote).count();
        let bad: Vec<_> =
            self.backends.iter().filter(|backend| !backend.verdict.is_well()).map(|backend| backend.name).collect();
        match (on, bad.len()) {
            (0, _) => "Nothing was sent: every backend that sends data to another program is off.".to_owned(),
            (_, 0) => "Every backend that is on accepted the test data.".to_owned(),
            _ => format!("Failed: {}. Correct the errors above, then check again.", bad.join(", ")),
        }
    }
}

impl BackendReport {
    /// Creates the report for a check that panicked.
    pub(super) fn from_panic(name: &'static str) -> Self {
        let message = Message::new("panic while checking this backend (see above)").next("report this bug");
        let findings = vec![Finding { severity: Severity::Error, message }];
        Self { verdict: Verdict::Failed, findings, name, ..Self::default() }
    }
}

impl Verdict {
    pub(super) fn is_well(self) -> bool {
        matches!(self, Self::Accepted | Self::Off | Self::Local)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "NOT ACCEPTED",
            Self::Failed => "NOT DELIVERED",
            Self::Waiting => "WAITING",
            Self::Off => "off",
            Self::Local => "on",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.settings.as_deref().unwrap_or("no file");
        writeln!(f, "settings {file}, service {} ({})", self.service_name, self.service_name_from)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))?;
        self.backends.iter().try_for_each(|backend| write!(f, "\n{backend}"))?;
        write!(f, "\n{}", self.conclusion())
    }
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, verdict, destination, reason, sent, .. } = self;
        writeln!(f, "{name:<10} {:<13} {destination}", verdict.as_str())?;
        writeln!(f, "    {}{reason}", if *verdict == Verdict::Waiting { "error: " } else { "" })?;
        let is_tried = !matches!(verdict, Verdict::Off | Verdict::Local);
        for SettingValue { key, value, origin } in
            self.values.iter().filter(|value| is_tried && value.origin != "default")
        {
            writeln!(f, "    set       {key} = {value} ({origin})")?;
        }
        if let Some(SentItems { items, unit, bytes, trace_id }) = sent {
            writeln!(f, "    sent      {items} {unit} in {bytes} bytes, trace {trace_id}")?;
        }
        self.answers.iter().try_for_each(|answer| writeln!(f, "    answered  {answer}"))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))
    }
}

//! What a check found, for people and for machines.

use std::fmt;

use serde::Serialize;

use crate::settings::{Finding, Settings, Severity};

/// What a check found.
#[derive(Debug, Serialize)]
pub(in crate::run) struct Report {
    /// Whether all that is on has accepted what was sent.
    pub(in crate::run) ok: bool,
    /// The settings file, if there is one.
    settings: Option<String>,
    service_name: String,
    service_name_from: String,
    /// What is remarkable about what belongs to no backend.
    findings: Vec<Finding>,
    values: Vec<Value>,
    backends: Vec<BackendReport>,
}

/// What a check found about one backend.
#[derive(Debug, Serialize)]
pub(in crate::run) struct BackendReport {
    pub(in crate::run) name: &'static str,
    pub(in crate::run) verdict: Verdict,
    pub(in crate::run) destination: String,
    pub(in crate::run) reason: String,
    pub(in crate::run) values: Vec<Value>,
    pub(in crate::run) sent: Option<Sent>,
    pub(in crate::run) answers: Vec<String>,
    pub(in crate::run) findings: Vec<Finding>,
}

/// A setting: `[honeycomb] timeout`, `10000`, `default`.
#[derive(Debug, Serialize)]
pub(in crate::run) struct Value {
    pub(in crate::run) key: String,
    pub(in crate::run) value: String,
    pub(in crate::run) origin: String,
}

/// What left.
#[derive(Debug, Serialize)]
pub(in crate::run) struct Sent {
    pub(in crate::run) items: usize,
    pub(in crate::run) unit: &'static str,
    pub(in crate::run) bytes: usize,
    pub(in crate::run) trace_id: String,
}

/// How a check of one backend ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::run) enum Verdict {
    /// What was sent was taken.
    Accepted,
    /// It was not, and sending it again would not help.
    Refused,
    /// Nobody took it: not reached, or not now.
    Failed,
    /// It is on, but lacks something.
    Waiting,
    /// It is not on.
    Off,
    /// It is on, and sends nothing to anybody else.
    Local,
}

impl Report {
    pub(in crate::run) fn new(
        settings: Option<String>,
        shared: &Settings,
        findings: Vec<Finding>,
        values: Vec<Value>,
        backends: Vec<BackendReport>,
    ) -> Self {
        let ok = backends.iter().all(|backend| backend.verdict.is_well());
        let service_name = shared.service_name.value.clone();
        let service_name_from = shared.service_name.origin.to_string();
        Self { ok, settings, service_name, service_name_from, findings, values, backends }
    }

    fn conclusion(&self) -> String {
        let is_remote = |backend: &&BackendReport| !matches!(backend.verdict, Verdict::Off | Verdict::Local);
        let on = self.backends.iter().filter(is_remote).count();
        let bad: Vec<_> =
            self.backends.iter().filter(|backend| !backend.verdict.is_well()).map(|backend| backend.name).collect();
        match (on, bad.len()) {
            (0, _) => "Nothing leaves this machine: no backend is on that sends to others.".to_owned(),
            (_, 0) => "All that is on has accepted what was sent.".to_owned(),
            _ => format!("Not well: {}. Mend what is said above, then check again.", bad.join(", ")),
        }
    }
}

impl BackendReport {
    pub(in crate::run) fn new(name: &'static str) -> Self {
        Self {
            name,
            verdict: Verdict::Off,
            destination: String::new(),
            reason: String::new(),
            values: Vec::new(),
            sent: None,
            answers: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// What is to be said when checking it has panicked.
    pub(in crate::run) fn of_a_bug(name: &'static str) -> Self {
        let text = "a bug: the panic above came from checking it; please report it".to_owned();
        let findings = vec![Finding { severity: Severity::Error, text }];
        Self { verdict: Verdict::Failed, findings, ..Self::new(name) }
    }
}

impl Verdict {
    fn is_well(self) -> bool {
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
        for Value { key, value, origin } in self.values.iter().filter(|value| is_tried && value.origin != "default") {
            writeln!(f, "    set       {key} = {value} ({origin})")?;
        }
        if let Some(Sent { items, unit, bytes, trace_id }) = sent {
            writeln!(f, "    sent      {items} {unit} in {bytes} bytes, trace {trace_id}")?;
        }
        self.answers.iter().try_for_each(|answer| writeln!(f, "    answered  {answer}"))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))
    }
}

//! Report of a check, as text or JSON.

use serde::Serialize;

use crate::run::summary::write_finding;
use crate::settings::{Finding, Severity};
use crate::terminal::Terminal;
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
#[derive(Clone, Debug, Default, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub(super) struct SettingValue {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: String,
}

/// Summary of the sent payloads.
#[derive(Clone, Debug, Serialize)]
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
    /// The check was interrupted before there was an answer.
    Unknown,
    /// A required setting is missing.
    Waiting,
    /// The backend is off.
    #[default]
    Off,
    /// The backend is on, but only writes to the output of this process.
    Local,
}

impl Report {
    /// Text above the backends.
    pub(super) fn heading(&self, terminal: &Terminal) -> String {
        let file = self.settings.as_deref().unwrap_or("no file");
        let mut text = String::new();
        terminal.hang(
            &mut text,
            0,
            &format!("settings {file}, service {} ({})", self.service_name, self.service_name_from),
        );
        self.findings.iter().for_each(|finding| write_finding(&mut text, terminal, INDENT, finding));
        text
    }

    /// Text below the backends.
    pub(super) fn conclusion(&self, terminal: &Terminal) -> String {
        let is_remote = |backend: &&BackendReport| !matches!(backend.verdict, Verdict::Off | Verdict::Local);
        let on = self.backends.iter().filter(is_remote).count();
        let names = |is_listed: &dyn Fn(Verdict) -> bool| {
            let listed = self.backends.iter().filter(|backend| is_listed(backend.verdict));
            listed.map(|backend| backend.name).collect::<Vec<_>>().join(", ")
        };
        let unknown = names(&|verdict| verdict == Verdict::Unknown);
        let failed = names(&|verdict| verdict != Verdict::Unknown && !verdict.is_well());
        let interrupted = format!("Interrupted. Not known: {unknown}.");
        let (style, text) = match (unknown.is_empty(), failed.is_empty()) {
            _ if on == 0 => {
                let text = "Nothing was sent: every backend that sends data to another program is off.";
                (terminal.palette.warning, text.to_owned())
            }
            (true, true) => (terminal.palette.ok, "Every backend that is on accepted the test data.".to_owned()),
            (true, false) => {
                (terminal.palette.error, format!("Failed: {failed}. Correct the errors above, then check again."))
            }
            (false, true) => (terminal.palette.warning, interrupted),
            (false, false) => (terminal.palette.error, format!("{interrupted} Failed: {failed}.")),
        };
        let mut wrapped = format!("\n{style}");
        terminal.hang(&mut wrapped, 0, &text);
        format!("{wrapped}{style:#}")
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
            Self::Unknown => "NOT KNOWN",
            Self::Waiting => "WAITING",
            Self::Off => "off",
            Self::Local => "on",
        }
    }
}

/// Columns in front of the lines about a backend.
const INDENT: usize = 4;
/// Width of the first words of these lines, with the blank after them.
const LABEL: usize = 10;

impl BackendReport {
    /// The report as text: a line about the result, and indented lines.
    pub(super) fn print(&self, terminal: &Terminal) -> String {
        let Self { verdict, destination, reason, sent, .. } = self;
        let name = terminal.palette.name;
        let style = match verdict {
            Verdict::Accepted | Verdict::Local => terminal.palette.ok,
            Verdict::Refused | Verdict::Failed => terminal.palette.error,
            Verdict::Unknown | Verdict::Waiting => terminal.palette.warning,
            Verdict::Off => terminal.palette.dim,
        };
        let head = format!("{name}{:<10}{name:#} {style}{:<13}{style:#}", self.name, verdict.as_str());
        let mut text = format!("\n{head} {destination}\n{:INDENT$}", "");
        if *verdict == Verdict::Waiting {
            let error = terminal.palette.error;
            text.push_str(&format!("{error}error:{error:#} "));
        }
        terminal.hang(&mut text, INDENT, reason);
        let dim = terminal.palette.dim;
        let mut line = |label: &str, content: &str| {
            text.push_str(&format!("{:INDENT$}{dim}{label:<LABEL$}{dim:#}", ""));
            terminal.hang(&mut text, INDENT + LABEL, content);
        };
        let is_tried = !matches!(verdict, Verdict::Off | Verdict::Local);
        for SettingValue { key, value, origin } in
            self.values.iter().filter(|value| is_tried && value.origin != "default")
        {
            line("set", &format!("{key} = {value} ({origin})"));
        }
        if let Some(SentItems { items, unit, bytes, trace_id }) = sent {
            line("sent", &format!("{items} {unit} in {bytes} bytes, trace {trace_id}"));
        }
        self.answers.iter().for_each(|answer| line("answered", answer));
        self.findings.iter().for_each(|finding| write_finding(&mut text, terminal, INDENT, finding));
        text
    }
}

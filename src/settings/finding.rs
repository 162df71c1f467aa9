//! Findings about the settings that can be detected offline. Each names the variable or the line,
//! its value, and the next step.

use std::fmt;

use serde::Serialize;

use crate::text::{Message, url};

/// A note, warning or error about the settings.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Severity.
    pub severity: Severity,
    /// The problem, its place, and the next step.
    #[serde(rename = "text")]
    pub message: Message,
}

/// Collector of findings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a note.
    pub fn note(&mut self, message: impl Into<Message>) {
        self.0.push(Finding { severity: Severity::Note, message: message.into() });
    }

    /// Adds a warning.
    pub fn warn(&mut self, message: impl Into<Message>) {
        self.0.push(Finding { severity: Severity::Warning, message: message.into() });
    }

    /// Returns all findings, in the order in which they were added.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Useful to know, but no mistake.
    Note,
    /// Probably a mistake, but the setting is used.
    Warning,
    /// Does not work.
    Error,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.message)
    }
}

/// Describes a secret: its length, and the last four characters if it has at least 16.
pub fn described_secret(secret: &str) -> String {
    let length = secret.chars().count();
    let ending: String = secret.chars().skip(length.saturating_sub(4)).collect();
    if length >= 16 { format!("ending in {ending} ({length} characters)") } else { format!("of {length} characters") }
}

/// Returns an address without secrets. A text that is not an address may be a key in the wrong
/// place, so it is described like a secret.
pub fn described_address(text: &str) -> String {
    let is_address = text.contains("://") || (text.contains(['.', ':']) && !text.contains('='));
    if is_address || text == "localhost" { url::redacted(text) } else { format!("(text {})", described_secret(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_length_and_at_most_its_last_four_characters() {
        assert_eq!(described_secret("abcdefghijklmnop"), "ending in mnop (16 characters)");
        assert_eq!(described_secret("abcdefghijklmno"), "of 15 characters");
        assert_eq!(described_secret(""), "of 0 characters");
    }

    #[test]
    fn what_stands_for_an_address_and_is_none_may_be_a_key() {
        for (text, shown) in [
            ("api.honeycomb.io", "api.honeycomb.io"),
            ("localhost", "localhost"),
            ("https://me:secret@host:1/x?y=z", "https://host:1/x"),
            ("hcaik_01secretsecretwxyz", "(text ending in wxyz (24 characters))"),
            ("x-honeycomb-team=a.b:c", "(text ending in .b:c (22 characters))"),
        ] {
            assert_eq!(described_address(text), shown);
        }
    }
}

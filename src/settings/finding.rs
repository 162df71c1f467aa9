//! What was found out about the settings without asking anybody: a sentence that names the variable or the line, its
//! value, and the next step.

use std::fmt;

use serde::Serialize;

use crate::text::{Message, url};

/// One thing that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What, where, what next.
    #[serde(rename = "text")]
    pub message: Message,
}

/// What was found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Something that is as it is, and worth knowing.
    pub fn note(&mut self, message: impl Into<Message>) {
        self.0.push(Finding { severity: Severity::Note, message: message.into() });
    }

    /// Something that is probably not what was meant, but not wrong enough to stop for.
    pub fn warn(&mut self, message: impl Into<Message>) {
        self.0.push(Finding { severity: Severity::Warning, message: message.into() });
    }

    /// All of them, in the order in which they were found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it is, and worth knowing.
    Note,
    /// It is probably not what was meant.
    Warning,
    /// It does not work.
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

/// A secret as it may be shown: how long it is, and its last four characters if it can spare them.
#[must_use]
pub fn described_secret(secret: &str) -> String {
    let length = secret.chars().count();
    let ending: String = secret.chars().skip(length.saturating_sub(4)).collect();
    if length >= 16 { format!("ending in {ending} ({length} characters)") } else { format!("of {length} characters") }
}

/// An address as it may be shown. What can be none may be a key in the wrong place, so its value is not repeated.
#[must_use]
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

//! Messages for the user: a problem and the next step.

use std::fmt;

use serde::{Serialize, Serializer};

/// A problem, its place (variable, file and line, or URL without secrets), and the next step.
/// Displayed as one line, `what; next: next step`. Implements [`std::error::Error`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// The problem and its place.
    pub what: String,
    /// The next step. Empty if `what` already contains it.
    pub next: String,
}

impl Message {
    /// Creates a message without a next step.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), next: String::new() }
    }

    /// Adds a consequence to the problem.
    pub fn and(self, consequence: &str) -> Self {
        Self { what: format!("{}; {consequence}", self.what), ..self }
    }

    /// Sets the next step.
    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.next.is_empty() { Ok(()) } else { write!(f, "; next: {}", self.next) }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::error::Error for Message {}

impl From<String> for Message {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

impl From<&str> for Message {
    fn from(what: &str) -> Self {
        Self::new(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_its_next_step_at_the_end() {
        let message = Message::new("broken pipe: standard output");
        assert_eq!(message.to_string(), "broken pipe: standard output");
        let message = message.next("set enabled = false");
        assert_eq!(message.to_string(), "broken pipe: standard output; next: set enabled = false");
        assert_eq!(
            serde_json::to_string(&message).unwrap(),
            "\"broken pipe: standard output; next: set enabled = false\""
        );
    }
}

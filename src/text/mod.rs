//! Small helpers for text: URLs, messages, safe printing of untrusted text, annotated JSON.

pub(crate) mod encoding;
pub(crate) mod explanation;
pub(crate) mod ip;
pub mod json;
pub mod message;
pub(crate) mod pretty;
pub(crate) mod time;
pub mod url;

use ureq::http::StatusCode;

pub use message::Message;
pub use url::Url;

/// Returns the first `max` characters of an untrusted text, with control characters replaced by
/// spaces. The text then cannot start a new line or move the cursor.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns true if a text has only ASCII characters that are printed as they are.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | !(b' '..0x7f).contains(&byte))
}

/// Returns an untrusted text as one line, cut after 200 characters.
pub(crate) fn one_line(text: &str) -> String {
    const MAX_LINE: usize = 200;
    let text = text.trim();
    let mut line = printable(text, MAX_LINE);
    if longer_than(text, MAX_LINE) {
        line.push_str("...");
    }
    line
}

/// Returns true if the text has more characters than that. Characters are counted, not bytes.
pub(crate) fn longer_than(text: &str, characters: usize) -> bool {
    text.len() > characters && text.chars().nth(characters).is_some()
}

/// Returns the name of an HTTP status: `Not Found` for 404.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

/// Returns the first `characters` characters of `text`.
pub(crate) fn first_chars(text: &str, characters: usize) -> &str {
    // A character has at least one byte.
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

/// Cuts `text` to at most `max` bytes, including a mark at the end.
pub(crate) fn cut_bytes(mut text: String, max: usize) -> String {
    const MARK: &str = " [cut]";
    if text.len() > max {
        let end = (0..=max - MARK.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

/// Wraps `text` into lines of at most `width` characters. A longer word gets its own line.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line =
            lines.last_mut().filter(|line| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Returns bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<[u8; 2]> = bytes.iter().map(|byte| HEX_PAIRS[usize::from(*byte)]).collect();
    String::from_utf8(digits.into_flattened()).expect("hex digits are ASCII")
}

/// The two lower-case hex digits of every byte.
pub(crate) const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        assert_eq!(printable("a\r\nb\u{1b}[31m", 300), "a  b [31m");
        assert_eq!(printable(&"é".repeat(301), 300).chars().count(), 300);
    }
}

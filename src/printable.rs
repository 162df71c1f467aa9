//! What others wrote, fit for a line of ours: nothing in it begins another line or moves a cursor.

/// The first `most` characters, control characters as blanks.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        assert_eq!(printable("a\r\nb\u{1b}[31m", 300), "a  b [31m");
        assert_eq!(printable(&"é".repeat(301), 300).chars().count(), 300);
    }
}

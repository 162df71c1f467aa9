//! A line of the terminal: pieces of text with styles, cut at the width.

use crate::terminal::{columns, fitting};

/// A line that is written. If its text is longer than the width, its last column is `…`.
pub(super) struct Line<'o> {
    out: &'o mut Vec<u8>,
    width: usize,
    /// Columns so far.
    column: usize,
    /// Length of `out` before the text in the last column, and the end of the style there.
    last_column: Option<(usize, String)>,
    is_cut: bool,
}

impl<'o> Line<'o> {
    /// Begins a line.
    pub(super) fn new(out: &'o mut Vec<u8>, width: usize) -> Self {
        Self { out, width, column: 0, last_column: None, is_cut: false }
    }

    /// Adds text, with the control sequences before and after it.
    pub(super) fn put(&mut self, [begin, end]: &[String; 2], text: &str) {
        if self.is_cut || text.is_empty() {
            return;
        }
        let taken = columns(text);
        if self.column + taken < self.width {
            self.column += taken;
            return self.write(&[begin, text, end]);
        }
        if let Some((length, end)) = self.last_column.take() {
            // The line was full, and there is more.
            self.out.truncate(length);
            return self.cut(&end);
        }
        let (shown, _) = fitting(text, self.width.saturating_sub(self.column + 1));
        self.write(&[begin, shown]);
        if self.column + taken > self.width {
            return self.cut(end);
        }
        self.last_column = Some((self.out.len(), end.clone()));
        self.column = self.width;
        self.write(&[&text[shown.len()..], end]);
    }

    /// Ends the line.
    pub(super) fn end(self) {
        self.out.push(b'\n');
    }

    fn cut(&mut self, end: &str) {
        self.is_cut = true;
        self.write(&[end, "…"]);
    }

    fn write(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_is_too_long_is_cut() {
        let bold = ["<".to_owned(), ">".to_owned()];
        for (pieces, expected) in [
            (&["abc"][..], "<abc>\n"),
            (&["abcde"], "<abcde>\n"),
            (&["abcdef"], "<abcd>…\n"),
            (&["abc", "de"], "<abc><de>\n"),
            (&["abc", "de", ""], "<abc><de>\n"),
            (&["abc", "de", "f"], "<abc><d>…\n"),
            (&["abc", "def", "g"], "<abc><d>…\n"),
            (&["abc", "日"], "<abc><日>\n"),
            (&["abc", "日", "x"], "<abc><>…\n"),
            (&["abc日x"], "<abc>…\n"),
        ] {
            let mut out = Vec::new();
            let mut line = Line::new(&mut out, 5);
            pieces.iter().for_each(|piece| line.put(&bold, piece));
            line.end();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{pieces:?}");
        }
    }
}

//! JSON for reading: one field a line, with a note above each field.
//!
//! The text is split by hand, not parsed: numbers, escapes and the order of fields stay exactly as
//! the encoders wrote them. Only line ends, blanks and notes are added.

use std::collections::HashSet;

/// Pairs of a field name and the note about it.
///
/// A name may begin with the names of the enclosing fields (`scope.name`). The longest name that
/// fits wins. An element of an OTLP attribute list is found by the key of the attribute.
pub(crate) type FieldNotes = &'static [(&'static str, &'static str)];

/// Spreads JSON text over lines. Each note is printed once, above the first field that it fits.
pub(crate) fn pretty_print(json: &str, notes: FieldNotes) -> String {
    let mut printer = PrettyPrinter { text: String::new(), notes, printed: HashSet::new() };
    printer.value(json, 0, "");
    printer.text.push('\n');
    printer.text
}

/// Prints each line with its remark in a second column.
pub(crate) fn two_columns<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(line, remark): (&str, &str)| match remark {
        "" => format!("{line}\n"),
        remark => format!("{line:<COLUMN$}  {remark}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// Start of the second column.
const COLUMN: usize = 66;

/// The text so far, and the names whose notes were printed.
struct PrettyPrinter {
    text: String,
    notes: FieldNotes,
    printed: HashSet<&'static str>,
}

/// Maximum length of a line that keeps a whole attribute.
const WIDTH: usize = 120;

impl PrettyPrinter {
    fn value(&mut self, json: &str, depth: usize, path: &str) {
        match json.as_bytes() {
            [b'{', b'}'] | [b'[', b']'] => self.text.push_str(json),
            [b'{', ..] => self.members(json, ['{', '}'], depth, path),
            [b'[', ..] => self.members(json, ['[', ']'], depth, path),
            _ => self.text.push_str(json),
        }
    }

    fn members(&mut self, json: &str, [open, close]: [char; 2], depth: usize, path: &str) {
        self.text.push(open);
        let members = members(json);
        let last = members.len() - 1;
        for (index, member) in members.into_iter().enumerate() {
            let depth = depth + 1;
            match name_and_value(member).filter(|_| open == '{') {
                Some((name, value)) => {
                    let path = format!("{path}.{name}");
                    self.note(&path, depth);
                    self.line(depth);
                    self.text.push_str(&format!("\"{name}\": "));
                    self.value(value, depth, &path);
                }
                None => {
                    let attribute = key_of_attribute(member);
                    if let Some(key) = &attribute {
                        self.note(&format!("{path}.{key}"), depth);
                    }
                    self.line(depth);
                    if member.len() + 2 * depth <= WIDTH && attribute.is_some() {
                        self.text.push_str(member);
                    } else {
                        self.value(member, depth, path);
                    }
                }
            }
            if index < last {
                self.text.push(',');
            }
        }
        self.line(depth);
        self.text.push(close);
    }

    fn note(&mut self, path: &str, depth: usize) {
        if let Some((name, note)) = note_for(self.notes, path)
            && self.printed.insert(name)
        {
            self.line(depth);
            self.text.push_str(&format!("// {note}"));
        }
    }

    fn line(&mut self, depth: usize) {
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(depth));
    }
}

/// The longest name in `notes` that is the end of `path`, and its note.
fn note_for(notes: FieldNotes, path: &str) -> Option<(&'static str, &'static str)> {
    let fits = |name: &str| path.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
    notes.iter().copied().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len())
}

/// The members of an object, or the elements of a list, as they are written. It must not be empty.
fn members(json: &str) -> Vec<&str> {
    let inner = &json[1..json.len() - 1];
    let (mut members, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                members.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(&inner[start..]);
    members
}

/// Splits `"name":value`. No field that is printed here has a quote in its name.
fn name_and_value(member: &str) -> Option<(&str, &str)> {
    member.strip_prefix('"')?.split_once("\":")
}

/// The key of an OTLP attribute: `app.now` of
/// `{"key":"app.now","value":{"stringValue":"..."}}`
fn key_of_attribute(element: &str) -> Option<&str> {
    Some(element.strip_prefix("{\"key\":\"")?.split_once("\",\"value\":")?.0)
}

/// Names in `notes` that fit no field of `json`.
#[cfg(test)]
pub(crate) fn without_field(json: &str, notes: FieldNotes) -> Vec<&'static str> {
    let text = pretty_print(json, notes);
    let is_printed = |note: &str| text.lines().any(|line| line.trim_start().strip_prefix("// ") == Some(note));
    notes.iter().filter(|(_, note)| !is_printed(note)).map(|(name, _)| *name).collect()
}

/// Paths of the fields of `json` that no name in `notes` fits.
#[cfg(test)]
pub(crate) fn without_note(json: &str, notes: FieldNotes) -> Vec<String> {
    fn collect(json: &str, path: &str, notes: FieldNotes, found: &mut Vec<String>) {
        if !json.starts_with(['{', '[']) || json.len() == 2 {
            return;
        }
        for member in members(json) {
            let (name, value) = match (name_and_value(member), key_of_attribute(member)) {
                (_, Some(key)) if json.starts_with('[') => (Some(key), ""),
                (Some((name, value)), _) if json.starts_with('{') => (Some(name), value),
                _ => (None, member),
            };
            let path = name.map_or_else(|| path.to_owned(), |name| format!("{path}.{name}"));
            if name.is_some() && note_for(notes, &path).is_none() {
                found.push(path.clone());
            }
            collect(value, &path, notes, found);
        }
    }
    let mut found = Vec::new();
    collect(json, "", notes, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: FieldNotes = &[("a", "first"), ("b.a", "inner"), ("k.x", "an attribute")];

    #[test]
    fn the_bytes_stay_the_same_but_for_blanks_and_notes() {
        let json = r#"{"a":1,"b":{"a":"x,\"}{"},"c":[],"k":[{"key":"k.x","value":{"intValue":"1"}},[1,2]]}"#;
        let text = pretty_print(json, NOTES);
        let expected = r#"{
  // first
  "a": 1,
  "b": {
    // inner
    "a": "x,\"}{"
  },
  "c": [],
  "k": [
    // an attribute
    {"key":"k.x","value":{"intValue":"1"}},
    [
      1,
      2
    ]
  ]
}
"#;
        assert_eq!(text, expected);
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        assert_eq!(lines.collect::<String>().replace("\": ", "\":"), json);
        assert_eq!(without_note(json, NOTES), [".b", ".c", ".k"]);
        assert_eq!(without_field(json, NOTES), [""; 0]);
        assert_eq!(without_field(r#"{"b":{"a":1}}"#, NOTES), ["a", "k.x"]);
    }

    #[test]
    fn a_note_is_printed_once() {
        assert_eq!(pretty_print(r#"[{"a":1},{"a":2}]"#, NOTES).matches("// first").count(), 1);
    }
}

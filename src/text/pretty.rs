//! JSON for reading: one field a line, with a note above each field.
//!
//! The text is split by hand, not parsed: numbers, escapes and the order of fields stay exactly as
//! the encoders wrote them. Only line ends, blanks and notes are added.

use std::collections::HashSet;

use super::wrap;

/// Notes on the fields of a document: the comments of the encoder that writes it.
pub(crate) struct FieldNotes(Vec<FieldNote>);

struct FieldNote {
    /// Name of the function that writes the field.
    function: &'static str,
    field: &'static str,
    note: String,
}

/// JSON text with the notes on its fields.
pub(crate) struct AnnotatedJson {
    /// Name of the function that writes the text.
    pub(crate) root: &'static str,
    pub(crate) json: String,
    pub(crate) notes: FieldNotes,
    /// Fields that are printed as `[...]`.
    pub(crate) elided: &'static [&'static str],
}

impl FieldNotes {
    /// Reads an encoder: the comment above the line that writes a field is the note on it.
    ///
    /// ```text
    /// fn span(..) {
    ///     // 64 bits as hex.
    ///     json.raw(r#","spanId":"#).quoted(..);
    /// ```
    pub(crate) fn of_encoder(source: &'static str) -> Self {
        let (mut notes, mut function, mut comment) = (Vec::new(), "", String::new());
        let shipped = source.split("\nmod tests").next().unwrap_or_default();
        for line in shipped.lines().map(str::trim_start) {
            if let Some((_, rest)) = line.split_once("fn ") {
                function = rest.split(['(', '<']).next().unwrap_or_default();
            }
            if let Some(more) = line.strip_prefix("// ") {
                comment.push_str(if comment.is_empty() { "" } else { " " });
                comment.push_str(more);
                continue;
            }
            let field = field_written(line);
            if let Some(field) = field.filter(|_| !comment.is_empty()) {
                notes.push(FieldNote { function, field, note: comment.clone() });
            }
            if field.is_some() || line.ends_with([';', '{', '}']) {
                comment.clear();
            }
        }
        Self(notes)
    }

    /// Finds the note on the field at the end of `path`. If several functions write a field of this
    /// name, the one with the name of the enclosing object counts.
    fn find(&self, path: &str) -> Option<&FieldNote> {
        let (parents, field) = path.rsplit_once('.')?;
        let object = parents.rsplit('.').next().unwrap_or_default();
        let of_field = || self.0.iter().filter(|note| note.field == field);
        of_field()
            .find(|note| object.trim_end_matches('s') == note.function.trim_end_matches('s'))
            .or_else(|| of_field().next())
    }
}

/// Returns the first field in a line of an encoder: `spanId` of `json.raw(r#","spanId":"#)`. A document
/// that is a string of another one has backslashes before the quotation marks.
fn field_written(line: &'static str) -> Option<&'static str> {
    let (_, fragment) = line.split_once("r#\"")?;
    let (name, _) = fragment.trim_start_matches(['{', ',', '}', ']', '"', '\\']).split_once("\":")?;
    Some(name.trim_end_matches('\\'))
}

impl AnnotatedJson {
    /// Spreads the text over lines. Each note is printed once, above the first field that it fits.
    pub(crate) fn print(&self) -> String {
        let mut printer = PrettyPrinter { of: self, text: String::new(), printed: HashSet::new() };
        printer.value(&self.json, 0, self.root);
        printer.text.push('\n');
        printer.text
    }

    /// Prints the first field of this name, and all that is in it. Text that is printed in part only
    /// has no such fields.
    pub(crate) fn print_field(&self, name: &str) -> Option<String> {
        if !self.elided.is_empty() {
            return None;
        }
        let (path, value) = find(&self.json, self.root, name)?;
        let mut printer = PrettyPrinter { of: self, text: String::new(), printed: HashSet::new() };
        printer.note(&path, 0);
        printer.text.push_str(&format!("\n\"{name}\": "));
        printer.value(value, 0, &path);
        printer.text.push('\n');
        Some(printer.text.trim_start().to_owned())
    }
}

/// The text so far, and the notes that were printed.
struct PrettyPrinter<'a> {
    of: &'a AnnotatedJson,
    text: String,
    printed: HashSet<*const FieldNote>,
}

/// Maximum length of a note's line, without its indentation.
const NOTE_WIDTH: usize = 92;
/// Maximum length of a line that keeps a whole attribute.
const WIDTH: usize = 120;

impl PrettyPrinter<'_> {
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
                    if self.of.elided.contains(&name) {
                        self.text.push_str("[...]");
                    } else {
                        self.value(value, depth, &path);
                    }
                }
                None => {
                    self.line(depth);
                    if member.len() + 2 * depth <= WIDTH && is_attribute(member) {
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
        if let Some(note) = self.of.notes.find(path)
            && self.printed.insert(note)
        {
            for line in wrap(&note.note, NOTE_WIDTH).lines() {
                self.line(depth);
                self.text.push_str(&format!("// {line}"));
            }
        }
    }

    fn line(&mut self, depth: usize) {
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(depth));
    }
}

/// Finds the first field of this name. Returns its path and its value.
fn find<'a>(json: &'a str, path: &str, wanted: &str) -> Option<(String, &'a str)> {
    if !json.starts_with(['{', '[']) || json.len() == 2 {
        return None;
    }
    members(json).into_iter().find_map(|member| match name_and_value(member).filter(|_| json.starts_with('{')) {
        Some((name, value)) => {
            let path = format!("{path}.{name}");
            if name == wanted { Some((path, value)) } else { find(value, &path, wanted) }
        }
        None => find(member, path, wanted),
    })
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

/// Returns true for an element of an OTLP attribute list: `{"key":"app.now","value":{...}}`.
fn is_attribute(element: &str) -> bool {
    element.starts_with("{\"key\":\"")
}

#[cfg(test)]
impl AnnotatedJson {
    /// Paths of the fields without a note, except for attributes and annotations, whose names the
    /// encoder does not know.
    pub(crate) fn without_note(&self) -> Vec<String> {
        fn collect(of: &AnnotatedJson, json: &str, path: &str, found: &mut Vec<String>) {
            if !json.starts_with(['{', '['])
                || json.len() == 2
                || path.ends_with("attributes")
                || path.ends_with("annotations")
            {
                return;
            }
            for member in members(json) {
                let (path, value) = match name_and_value(member).filter(|_| json.starts_with('{')) {
                    Some((name, value)) => (format!("{path}.{name}"), value),
                    None => (path.to_owned(), member),
                };
                if of.notes.find(&path).is_none() && json.starts_with('{') {
                    found.push(path.clone());
                }
                collect(of, value, &path, found);
            }
        }
        let mut found = Vec::new();
        collect(self, &self.json, self.root, &mut found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODER: &str = r##"
fn document(json: &mut Json) {
    let a = 1;
    // First,
    // on two lines.
    json.raw(r#"{"a":"#).unsigned(1);
    // Of the code, not of a field.
    let b = 2;
    json.raw(r#","b":{"#);
    b(json);
    json.raw(r#"},"c":[],"#);
    // A list.
    json.raw(r#""k":["#);
}

fn b(json: &mut Json) {
    // Inner.
    json.raw(r#""a":"#).string("x");
}
"##;

    fn annotated(json: &str) -> AnnotatedJson {
        let notes = FieldNotes::of_encoder(ENCODER);
        AnnotatedJson { root: "document", json: json.to_owned(), notes, elided: &["z"] }
    }

    #[test]
    fn the_bytes_stay_the_same_but_for_blanks_and_notes() {
        let json = r#"{"a":1,"b":{"a":"x,\"}{"},"c":[],"k":[{"key":"k.x","value":{"intValue":"1"}},[1,2]]}"#;
        let text = annotated(json).print();
        let expected = r#"{
  // First, on two lines.
  "a": 1,
  "b": {
    // Inner.
    "a": "x,\"}{"
  },
  "c": [],
  // A list.
  "k": [
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
        assert_eq!(
            annotated(json).without_note(),
            ["document.b", "document.c", "document.k.key", "document.k.value", "document.k.value.intValue"]
        );
    }

    #[test]
    fn a_note_is_printed_once() {
        assert_eq!(annotated(r#"[{"a":1},{"a":2}]"#).print().matches("// First").count(), 1);
    }

    #[test]
    fn one_field_is_printed_with_all_that_is_in_it() {
        let json = AnnotatedJson { elided: &[], ..annotated(r#"{"x":[{"b":{"a":"y"}}],"z":{"a":1}}"#) };
        assert_eq!(json.print_field("b").unwrap(), "\"b\": {\n  // Inner.\n  \"a\": \"y\"\n}\n");
        assert_eq!(json.print_field("z").unwrap(), "\"z\": {\n  // First, on two lines.\n  \"a\": 1\n}\n");
        assert_eq!(json.print_field("y"), None);
        let json = annotated(&json.json);
        assert!(json.print().contains("\"z\": [...]\n"));
        assert_eq!(json.print_field("z"), None);
    }
}

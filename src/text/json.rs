//! JSON, written by hand: constant parts are appended as they stand, and only text that may need
//! it is escaped.
//!
//! ```text
//! json.raw(r#"{"traceId":"#).quoted(trace_id).raw(r#","name":"#).string(name).raw("}");
//!
//! {"traceId":"5b8efff798038103d269b633813fc60c","name":"GET \"/\""}
//! ```
//!
//! Specification: <https://www.rfc-editor.org/rfc/rfc8259>.

/// JSON text that grows at its end. Its bytes are not checked again to be UTF-8.
#[derive(Default)]
pub struct Json(Vec<u8>);

impl Json {
    /// Makes an empty text with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Returns the text so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Removes all but the first `bytes` bytes.
    pub fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// Removes the text, and keeps the memory for the next one.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the text.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Appends a part of the document as it stands.
    // A constant part then needs no call of `memcpy`.
    #[inline(always)]
    pub fn raw(&mut self, part: &str) -> &mut Self {
        self.0.extend_from_slice(part.as_bytes());
        self
    }

    /// Appends text in quotes that needs no escaping: hex digits, a number, a constant.
    pub fn quoted(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.raw("\"").raw_bytes(text).raw("\"")
    }

    /// Appends any text in quotes, escaped.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.raw("\"").escaped(text).raw("\"")
    }

    /// Appends ASCII text. `replace` returns what is written for each character.
    pub fn replaced(&mut self, text: &[u8], replace: impl Fn(u8) -> u8) -> &mut Self {
        self.0.extend(text.iter().map(|byte| replace(*byte)));
        self
    }

    /// Appends UTF-8 as it stands.
    pub fn raw_bytes(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend_from_slice(text.as_ref());
        self
    }

    /// Appends text without quotes. Quotation marks, backslashes and control characters are
    /// escaped; JSON allows every other character as it is.
    pub fn escaped(&mut self, text: &str) -> &mut Self {
        if is_clean(text.as_bytes()) { self.raw(text) } else { self.escape(text.as_bytes()) }
    }

    /// Appends text for a string of a document that is itself a string of another one.
    pub fn escaped_twice(&mut self, text: &str) -> &mut Self {
        if is_clean(text.as_bytes()) { self.raw(text) } else { self.escape(&Self::default().escape(text.as_bytes()).0) }
    }

    // Most texts need no escaping.
    #[cold]
    fn escape(&mut self, text: &[u8]) -> &mut Self {
        text.iter().for_each(|byte| self.escape_byte(*byte));
        self
    }

    fn escape_byte(&mut self, byte: u8) {
        match byte {
            b'"' => self.raw(r#"\""#),
            b'\\' => self.raw(r"\\"),
            b'\n' => self.raw(r"\n"),
            b'\r' => self.raw(r"\r"),
            b'\t' => self.raw(r"\t"),
            0x08 => self.raw(r"\b"),
            0x0c => self.raw(r"\f"),
            0..b' ' => self.raw(&format!("\\u{byte:04x}")),
            _ => self.raw_bytes([byte]),
        };
    }

    /// Appends a whole number.
    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.raw_bytes(itoa::Buffer::new().format(number))
    }

    /// Appends a whole number that is not negative.
    pub fn unsigned(&mut self, number: u64) -> &mut Self {
        self.raw_bytes(itoa::Buffer::new().format(number))
    }

    /// Appends a finite number in its shortest form. JSON has no NaN and no infinity.
    pub fn float(&mut self, number: f64) -> &mut Self {
        self.raw(&serde_json::to_string(&number).unwrap_or_default())
    }

    /// Appends `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(if value { "true" } else { "false" })
    }

    /// Appends items with commas between them.
    pub fn separated<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        let mut is_first = true;
        for item in items {
            if !is_first {
                self.raw(",");
            }
            is_first = false;
            write(self, item);
        }
        self
    }
}

/// Returns true if no byte must be escaped. It looks at 16 or 8 bytes at once. The last group may
/// overlap the one before it.
fn is_clean(bytes: &[u8]) -> bool {
    match (bytes.last_chunk::<16>(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(last), ..) => bytes.as_chunks::<16>().0.iter().all(has_none) && has_none(last),
        (None, Some(first), Some(last)) => has_none(first) && has_none(last),
        _ => bytes.iter().all(|byte| has_none(&[*byte])),
    }
}

/// Returns true if no byte of the group must be escaped.
// Inlined, each of the three questions becomes two vector instructions.
#[inline(always)]
fn has_none<const N: usize>(group: &[u8; N]) -> bool {
    let any = |is: fn(u8) -> bool| group.iter().fold(false, |found, byte| found | is(*byte));
    !(any(|byte| byte < b' ') | any(|byte| byte == b'"') | any(|byte| byte == b'\\'))
}

/// Data that writes itself as JSON.
pub trait WriteJson {
    /// Appends the JSON of this value.
    fn write(&self, json: &mut Json);
}

impl<T: WriteJson> WriteJson for [T] {
    fn write(&self, json: &mut Json) {
        json.raw("[").separated(self, |json, item| item.write(json)).raw("]");
    }
}

impl<T: WriteJson> WriteJson for Vec<T> {
    fn write(&self, json: &mut Json) {
        self.as_slice().write(json);
    }
}

impl<T: WriteJson, const N: usize> WriteJson for [T; N] {
    fn write(&self, json: &mut Json) {
        self.as_slice().write(json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::id::IdSource;

    fn written(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::default();
        write(&mut json);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn any_text_is_escaped_as_serde_json_does() {
        let source = IdSource::new();
        let all: String = (0..=0x2fff_u32).filter_map(char::from_u32).collect();
        assert_eq!(written(|json| _ = json.string(&all)), serde_json::to_string(&all).unwrap());
        for _ in 0..2000 {
            let bytes: [u8; 32] = source.bytes();
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(written(|json| _ = json.string(&text)), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn any_number_is_written_as_serde_json_does() {
        let source = IdSource::new();
        let numbers = (0..2000).map(|_| u64::from_ne_bytes(source.bytes()));
        for number in numbers.chain([0, 1, 9, 10, u64::MAX, i64::MIN as u64]) {
            let float = Some(f64::from_bits(number)).filter(|float| float.is_finite()).unwrap_or(0.1);
            assert_eq!(written(|json| _ = json.unsigned(number)), number.to_string());
            assert_eq!(written(|json| _ = json.integer(number as i64)), (number as i64).to_string());
            assert_eq!(written(|json| _ = json.float(float)), serde_json::to_string(&float).unwrap());
        }
    }

    #[test]
    fn commas_stand_between_items_only() {
        let list = |items: &[i64]| written(|json| _ = json.separated(items, |json, &item| _ = json.integer(item)));
        assert_eq!([list(&[]), list(&[1]), list(&[1, 2, 3])], ["", "1", "1,2,3"]);
    }
}

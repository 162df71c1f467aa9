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

use super::cut_bytes;

/// JSON text that grows at its end.
#[derive(Default)]
pub struct Json(String);

impl Json {
    /// Makes an empty text with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Returns the text so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Cuts the text after the first `start` bytes to at most `most` bytes, including a mark.
    pub fn cut(&mut self, start: usize, most: usize) {
        if self.0.len() - start > most {
            let end = self.0.split_off(start);
            self.raw(&cut_bytes(end, most));
        }
    }

    /// Removes the text, and keeps the memory for the next one.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Appends a part of the document as it stands.
    // A constant part then needs no call of `memcpy`.
    #[inline(always)]
    pub fn raw(&mut self, part: &str) -> &mut Self {
        self.0.push_str(part);
        self
    }

    /// Appends text in quotes that needs no escaping: hex digits, a number, a constant.
    pub fn quoted(&mut self, text: &str) -> &mut Self {
        self.raw("\"").any(text).raw("\"")
    }

    /// Appends any text in quotes, escaped.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.raw("\"").escaped(text).raw("\"")
    }

    fn any(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// Appends text without quotes. Quotation marks, backslashes and control characters are
    /// escaped; JSON allows every other character as it is.
    pub fn escaped(&mut self, text: &str) -> &mut Self {
        if is_clean(text.as_bytes()) {
            return self.any(text);
        }
        self.0.reserve(text.len() + text.len() / 4);
        let mut rest = text;
        while let Some(at) = first_to_escape(rest.as_bytes()) {
            // The byte is ASCII, so both cuts are between characters.
            let byte = rest.as_bytes()[at];
            self.any(&rest[..at]);
            rest = &rest[at + 1..];
            match byte {
                b'"' => self.raw(r#"\""#),
                b'\\' => self.raw(r"\\"),
                b'\n' => self.raw(r"\n"),
                b'\r' => self.raw(r"\r"),
                b'\t' => self.raw(r"\t"),
                0x08 => self.raw(r"\b"),
                0x0c => self.raw(r"\f"),
                _ => self.raw(&format!("\\u{byte:04x}")),
            };
        }
        self.any(rest)
    }

    /// Appends a whole number.
    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.any(itoa::Buffer::new().format(number))
    }

    /// Appends a whole number that is not negative.
    pub fn unsigned(&mut self, number: u64) -> &mut Self {
        self.any(itoa::Buffer::new().format(number))
    }

    /// Appends a finite number in its shortest form. JSON has no NaN and no infinity.
    pub fn float(&mut self, number: f64) -> &mut Self {
        self.any(&serde_json::to_string(&number).unwrap_or_default())
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

fn must_be_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Returns true if no byte must be escaped. It looks at 16 or 8 bytes at once, for which the compiler
/// uses vector instructions. The last group may overlap the one before it.
fn is_clean(bytes: &[u8]) -> bool {
    fn has_none<const N: usize>(group: &[u8; N]) -> bool {
        !group.iter().fold(false, |found, byte| found | must_be_escaped(*byte))
    }
    match (bytes.last_chunk::<16>(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(last), ..) => bytes.as_chunks::<16>().0.iter().all(has_none) && has_none(last),
        (None, Some(first), Some(last)) => has_none(first) && has_none(last),
        _ => !bytes.iter().any(|byte| must_be_escaped(*byte)),
    }
}

/// Position of the first byte that must be escaped. It looks at eight bytes at once, as one number:
/// a byte of it borrows from its highest bit if it is less than what is subtracted.
fn first_to_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST_BITS: u64 = ONES << 7;
    let (groups, rest) = bytes.as_chunks::<8>();
    for (index, group) in groups.iter().enumerate() {
        let group = u64::from_le_bytes(*group);
        let less_than = |number: u64, limit: u8| number.wrapping_sub(ONES * u64::from(limit)) & !number;
        let is = |byte: u8| less_than(group ^ (ONES * u64::from(byte)), 1);
        let found = (less_than(group, b' ') | is(b'"') | is(b'\\')) & HIGHEST_BITS;
        if found != 0 {
            // Only the lowest found bit is certain: a borrow may reach the bytes above it.
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| must_be_escaped(*byte))?;
    Some(groups.len() * 8 + at)
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
        json.into_string()
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

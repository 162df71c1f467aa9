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

    /// Cuts the text after the first `start` bytes to at most `most` bytes, including a mark.
    pub fn cut(&mut self, start: usize, most: usize) {
        if self.0.len() - start > most {
            let end = String::from_utf8_lossy(&self.0[start..]).into_owned();
            self.0.truncate(start);
            self.raw(&cut_bytes(end, most));
        }
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
        self.raw("\"").raw_bytes(text.as_ref()).raw("\"")
    }

    /// Appends any text in quotes, escaped.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.raw("\"").escaped(text).raw("\"")
    }

    /// Appends other JSON as text in quotes, escaped.
    pub fn json_as_text(&mut self, json: &[u8]) -> &mut Self {
        self.raw("\"").escaped_bytes(json).raw("\"")
    }

    /// Appends ASCII text with other characters in place of some: `replace` returns them.
    pub fn replaced(&mut self, text: &[u8], replace: impl Fn(u8) -> u8) -> &mut Self {
        self.0.extend(text.iter().map(|byte| replace(*byte)));
        self
    }

    /// Appends UTF-8 as it stands.
    pub fn raw_bytes(&mut self, text: &[u8]) -> &mut Self {
        self.0.extend_from_slice(text);
        self
    }

    /// Appends text without quotes. Quotation marks, backslashes and control characters are
    /// escaped; JSON allows every other character as it is.
    pub fn escaped(&mut self, text: &str) -> &mut Self {
        self.escaped_bytes(text.as_bytes())
    }

    fn escaped_bytes(&mut self, text: &[u8]) -> &mut Self {
        if is_clean(text) { self.raw_bytes(text) } else { self.escape(text) }
    }

    // Most texts need no escaping.
    #[inline(never)]
    fn escape(&mut self, text: &[u8]) -> &mut Self {
        self.0.reserve(text.len() + text.len() / 4);
        let (groups, rest) = text.as_chunks::<8>();
        let mut last_group = [b' '; 8];
        last_group[..rest.len()].copy_from_slice(rest);
        // Start of the text that is not yet appended.
        let mut start = 0;
        for (index, group) in groups.iter().chain([&last_group]).enumerate() {
            let mut found = to_escape(group);
            while found != 0 {
                let at = index * 8 + found.trailing_zeros() as usize / 8;
                self.raw_bytes(&text[start..at]).escape_byte(text[at]);
                start = at + 1;
                found &= found - 1;
            }
        }
        self.raw_bytes(&text[start..])
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
            _ => self.raw(&format!("\\u{byte:04x}")),
        };
    }

    /// Appends a whole number.
    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.raw_bytes(itoa::Buffer::new().format(number).as_bytes())
    }

    /// Appends a whole number that is not negative.
    pub fn unsigned(&mut self, number: u64) -> &mut Self {
        self.raw_bytes(itoa::Buffer::new().format(number).as_bytes())
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

/// Returns the highest bit of each byte that must be escaped. It looks at eight bytes at once, as one
/// number. No sum carries into the next byte.
fn to_escape(group: &[u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LOW_BITS: u64 = ONES * 0x7f;
    let group = u64::from_le_bytes(*group);
    // The highest bit of each byte that is not 0.
    let not_zero = |bytes: u64| ((bytes & LOW_BITS) + LOW_BITS) | bytes;
    let is_not = |byte: u8| not_zero(group ^ (ONES * u64::from(byte)));
    let is_no_control = not_zero(group & (ONES * 0xe0));
    !(is_no_control & is_not(b'"') & is_not(b'\\')) & !LOW_BITS
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

//! Bytes from files and peers as text. A byte order mark, which editors on Windows write at the
//! beginning, is skipped. UTF-16 is recognised, so that a message can name it.

use std::fmt;

/// Bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotUtf8 {
    /// UTF-16, in either byte order.
    Utf16,
    /// Something else. The number is the offset of the first invalid byte.
    InvalidAt(usize),
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the bytes without a byte order mark.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Returns the bytes as text, without a byte order mark.
///
/// # Errors
///
/// The bytes are not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, NotUtf8> {
    if is_utf16(bytes) {
        return Err(NotUtf8::Utf16);
    }
    let text = without_mark(bytes);
    std::str::from_utf8(text).map_err(|error| NotUtf8::InvalidAt(bytes.len() - text.len() + error.valid_up_to()))
}

/// Returns true for UTF-16: the text begins with its byte order mark, or every other byte of the
/// first four is zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let is_zero = |at: usize| bytes.get(at).map(|byte| *byte == 0);
    let zeros = [0, 1, 2, 3].map(is_zero);
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || zeros == [false, true, false, true].map(Some)
        || zeros == [true, false, true, false].map(Some)
}

/// Next step for a file.
pub(crate) const SAVE_AS_UTF8: &str = "save the file as UTF-8";

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf16 => f.write_str("UTF-16 instead of UTF-8 (PowerShell's > writes it)"),
            Self::InvalidAt(_) => f.write_str("invalid UTF-8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped_and_utf_16_is_recognised() {
        for (bytes, text) in [
            (&b"\xef\xbb\xbfa"[..], Ok("a")),
            (b"a", Ok("a")),
            (b"", Ok("")),
            (b"\xff\xfea\0", Err(NotUtf8::Utf16)),
            (b"\xfe\xff\0a", Err(NotUtf8::Utf16)),
            (b"a\0b\0", Err(NotUtf8::Utf16)),
            (b"\0a\0b", Err(NotUtf8::Utf16)),
            (b"ab\0", Ok("ab\0")),
            (b"ab\xff", Err(NotUtf8::InvalidAt(2))),
            (b"\xef\xbb\xbfa\xff", Err(NotUtf8::InvalidAt(4))),
        ] {
            assert_eq!(utf8(bytes), text, "{bytes:?}");
        }
    }
}

//! File of one stored payload: two lines of text, and the body in gzip, a tenth of its size. This
//! prints the body: `tail -n +3 FILE | gunzip`.
//!
//! ```text
//! cruddur-spool 1 f0e4c2f76c58916ec258f246851bea09...     version, SHA-256 of everything below
//! {"items":2,"oldest":1768480496123,"newest":1768480496123,"traces":["69e7..."]}
//! 1f 8b 08 00 ...      {"resourceSpans":[{"resource":{"attributes":[{"key":"service.name",...
//! ```
//!
//! No setting is in it: address, key and signature are those in force when the payload is sent.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::delivery::{Item, Payload};
use crate::trace::id::TraceId;
use crate::wire::sigv4::sha256;

/// A payload with its body in gzip, and what is known about its items.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct StoredPayload {
    pub(super) payload: Payload,
    pub(super) times: Times,
}

/// Times of the oldest and the newest item, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::delivery) struct Times {
    pub(in crate::delivery) oldest: u64,
    pub(in crate::delivery) newest: u64,
}

impl Times {
    /// Returns the times of a batch.
    pub(in crate::delivery) fn of<T: Item>(batch: &[Arc<T>]) -> Self {
        let times = || batch.iter().map(|item| item.time());
        Self { oldest: times().min().unwrap_or_default(), newest: times().max().unwrap_or_default() }
    }
}

/// Reason why a file is no payload for this program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It does not begin with `cruddur-spool`.
    Foreign,
    /// It has a version that this program does not know.
    Version,
    /// It was cut off or changed.
    Corrupt,
}

/// Second line of a file.
#[derive(Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) items: usize,
    pub(super) oldest: u64,
    pub(super) newest: u64,
    traces: Vec<String>,
}

const NAME: &str = "cruddur-spool ";
const VERSION: &str = "1";

/// Returns the content of the file. `body` is that of the payload, in gzip.
pub(super) fn encode(payload: &Payload, body: &[u8], times: Times) -> Vec<u8> {
    let Times { oldest, newest } = times;
    let traces = payload.traces.iter().map(ToString::to_string).collect();
    let header = Header { items: payload.items, oldest, newest, traces };
    let mut rest = serde_json::to_vec(&header).expect("a header has only texts, numbers and flags");
    rest.push(b'\n');
    rest.extend_from_slice(body);
    let mut content = format!("{NAME}{VERSION} {}\n", sha256(&rest)).into_bytes();
    content.append(&mut rest);
    content
}

/// Reads a whole file.
///
/// # Errors
///
/// The file is not a payload, or not what was written.
pub(super) fn decode(content: &[u8]) -> Result<StoredPayload, Fault> {
    let (checksum, rest) = split(content)?;
    if sha256(rest).as_bytes() != checksum {
        return Err(Fault::Corrupt);
    }
    let (header, bytes) = header(rest)?;
    let traces = header.traces.iter().map(|id| TraceId::from_hex(id).ok_or(Fault::Corrupt));
    let traces = traces.collect::<Result<_, _>>()?;
    let payload = Payload { bytes: bytes.to_vec(), items: header.items, traces, trimmed: None };
    let times = Times { oldest: header.oldest, newest: header.newest };
    Ok(StoredPayload { payload, times })
}

/// Reads the header from the beginning of a file, without a check of the bytes below it.
///
/// # Errors
///
/// The file is not a payload.
pub(super) fn decode_header(beginning: &[u8]) -> Result<Header, Fault> {
    split(beginning).and_then(|(_, rest)| header(rest)).map(|(header, _)| header)
}

/// Returns the checksum, and what is below the first line.
fn split(content: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    // A file that was cut off may end within the name.
    if content.is_empty() || NAME.as_bytes().starts_with(content) {
        return Err(Fault::Corrupt);
    }
    let rest = content.strip_prefix(NAME.as_bytes()).ok_or(Fault::Foreign)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::Corrupt)?;
    let (line, rest) = (&rest[..end], &rest[end + 1..]);
    let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    if line[..space] != *VERSION.as_bytes() {
        return Err(Fault::Version);
    }
    Ok((line.get(space + 1..).unwrap_or_default(), rest))
}

fn header(rest: &[u8]) -> Result<(Header, &[u8]), Fault> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::Corrupt)?;
    let header = serde_json::from_slice(&rest[..end]).map_err(|_| Fault::Corrupt)?;
    Ok((header, &rest[end + 1..]))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "is not a file of cruddur",
            Self::Version => "comes from another version of cruddur",
            Self::Corrupt => "is damaged",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { oldest: 1_768_480_496_123, newest: 1_768_480_499_000 };

    fn payload() -> Payload {
        let traces = vec![TraceId::from_hex("5759e988bd862e3fe1be46a994272793").unwrap()];
        Payload { bytes: b"{\"resourceSpans\":[]}\n\x00\xff".to_vec(), items: 2, traces, trimmed: None }
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let content = encode(&payload(), &payload().bytes, TIMES);
        let text = String::from_utf8_lossy(&content);
        let second = text.lines().nth(1).unwrap();
        assert_eq!(
            second,
            r#"{"items":2,"oldest":1768480496123,"newest":1768480499000,"traces":["5759e988bd862e3fe1be46a994272793"]}"#
        );
        assert_eq!(decode(&content), Ok(StoredPayload { payload: payload(), times: TIMES }));
        assert_eq!(decode_header(&content).unwrap().items, 2);
    }

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_never_sent() {
        let content = encode(&payload(), &payload().bytes, TIMES);
        for length in 0..content.len() {
            assert!(decode(&content[..length]).is_err(), "cut off after {length} bytes");
            let mut changed = content.clone();
            changed[length] ^= 1;
            assert!(decode(&changed).is_err(), "byte {length} was changed");
        }
    }

    #[test]
    fn a_fault_says_whether_the_file_is_ours() {
        assert_eq!(decode(b"hello\nworld\n"), Err(Fault::Foreign));
        assert_eq!(decode(b"cruddur-spool 2 whatever\n"), Err(Fault::Version));
        assert_eq!(decode(b"cruddur-spool 1 f0e4\n{}\n"), Err(Fault::Corrupt));
        assert_eq!(decode(b""), Err(Fault::Corrupt));
    }
}

//! Trace and span ids: one id for every backend.
//!
//! All formats use the same 16 bytes as the trace id. Only the spelling differs:
//!
//! ```text
//! bytes   4e fa af 4d 1e 87 20 b3 95 41 90 19 50 01 9e e5
//! W3C     4efaaf4d1e8720b39541901950019ee5        traceparent, OTLP, log lines
//! X-Ray   1-4efaaf4d-1e8720b39541901950019ee5     X-Amzn-Trace-Id, segments
//! ```
//!
//! X-Ray reads the first four bytes as the second in which the trace began, so our ids begin with
//! that second. The other twelve bytes are random. W3C requires seven random bytes for the "random"
//! flag.
//!
//! Specification: <https://www.w3.org/TR/trace-context-2/#trace-id>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html>.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Serialize, Serializer};

use crate::text::HEX_PAIRS;

/// Id of a trace: 16 bytes, never all zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceId([u8; 16]);

/// Id of a span: 8 bytes, never all zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// Reads 32 lower-case hex digits, as in `traceparent`. Returns `None` for anything else, and
    /// for all zeros.
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text.as_bytes()).map(Self)
    }

    /// Reads `1-xxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxx`, as in `X-Amzn-Trace-Id`, in either case.
    ///
    /// The form is checked strictly. A lenient SDK passes `Root=zzz` on, and X-Ray drops the
    /// segment.
    pub fn from_xray(text: &str) -> Option<Self> {
        let (epoch, rest) = text.strip_prefix("1-")?.split_once('-')?;
        if epoch.len() != 8 || rest.len() != 24 {
            return None;
        }
        Self::from_hex(&format!("{epoch}{rest}").to_ascii_lowercase())
    }

    /// W3C spelling: 32 lower-case hex digits.
    pub fn hex(&self) -> Hex<32> {
        Hex::new(&self.0)
    }

    /// X-Ray spelling of the same bytes: `1-`, 8 digits, `-`, 24 digits.
    pub fn xray(&self) -> Hex<35> {
        let hex = self.hex().0;
        let mut text = *b"1-########-########################";
        text[2..10].copy_from_slice(&hex[..8]);
        text[11..].copy_from_slice(&hex[8..]);
        Hex(text)
    }

    /// Low 64 bits, from which the sampler `traceidratio` decides.
    pub fn low_64_bits(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl SpanId {
    /// Reads 16 lower-case hex digits. Returns `None` for anything else, and for all zeros.
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text.as_bytes()).map(Self)
    }

    /// Spelling of all formats: 16 lower-case hex digits.
    pub fn hex(&self) -> Hex<16> {
        Hex::new(&self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

/// Writes an id as hex digits. OTLP departs here from protobuf's JSON mapping, which requires
/// base64.
impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hex().as_str())
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hex().as_str())
    }
}

/// Ids as text, on the stack.
#[derive(Clone, Copy)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    fn new(bytes: &[u8]) -> Self {
        let mut digits = [b'0'; N];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
            *pair = HEX_PAIRS[usize::from(*byte)];
        }
        Self(digits)
    }

    /// Id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits and dashes are ASCII, so the array is")
    }
}

impl<const N: usize> AsRef<[u8]> for Hex<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Hex<55> {
    /// Ids and flags as `traceparent` has them: `00-` trace id `-` span id `-` two digits.
    pub(super) fn traceparent(trace_id: TraceId, span_id: SpanId, flags: u8) -> Self {
        let mut text = *b"00-################################-################-##";
        text[3..35].copy_from_slice(&trace_id.hex().0);
        text[36..52].copy_from_slice(&span_id.hex().0);
        text[53..].copy_from_slice(&Hex::<2>::new(&[flags]).0);
        Self(text)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Source of ids and uuids. It reads a few kilobytes at a time from the system's random generator.
///
/// A read for each id would cost 0.4 microseconds and a system call; a request needs at least three
/// ids.
pub struct IdSource {
    system: SystemRandom,
    pool: RefCell<Pool>,
}

struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

const POOL_BYTES: usize = 4096;

impl IdSource {
    /// Makes a source with an empty pool, which the first id fills.
    pub fn new() -> Self {
        Self { system: SystemRandom::new(), pool: RefCell::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) }
    }

    /// Makes a trace id that begins with `epoch_seconds`.
    pub fn trace_id(&self, epoch_seconds: u32) -> TraceId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&epoch_seconds.to_be_bytes());
        id[4..].copy_from_slice(&self.bytes::<12>());
        if id == [0; 16] {
            id[15] = 1;
        }
        TraceId(id)
    }

    /// Makes a span id.
    pub fn span_id(&self) -> SpanId {
        let mut id = self.bytes();
        if id == [0; 8] {
            id[7] = 1;
        }
        SpanId(id)
    }

    /// Makes a random (version 4) uuid.
    pub fn uuid(&self) -> String {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid().to_string()
    }

    /// Makes a random number from 0 up to but not including 1.
    pub fn fraction(&self) -> f64 {
        // A double holds 53 bits exactly.
        (u64::from_ne_bytes(self.bytes()) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns the next `N` random bytes. Each byte is used once.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut pool = self.pool.borrow_mut();
        if pool.used + N > POOL_BYTES {
            if self.system.fill(&mut pool.bytes).is_err() {
                fill_without_the_system(&mut pool.bytes);
            }
            pool.used = 0;
        }
        let start = pool.used;
        pool.used += N;
        let mut out = [0; N];
        out.copy_from_slice(&pool.bytes[start..start + N]);
        out
    }
}

impl Default for IdSource {
    fn default() -> Self {
        Self::new()
    }
}

/// Fills `bytes` from the random keys of the standard library's hash maps, for a machine without a
/// random generator (an old kernel, a strict sandbox). Ids must differ but need not be secret, and
/// a missing generator must not make a request fail.
fn fill_without_the_system(bytes: &mut [u8]) {
    let keys = RandomState::new();
    for (i, chunk) in bytes.chunks_mut(8).enumerate() {
        let hash = keys.hash_one((i, std::time::Instant::now()));
        chunk.copy_from_slice(&hash.to_ne_bytes()[..chunk.len()]);
    }
}

fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    (bytes != [0; N]).then_some(bytes)
}

/// Reads one lower-case digit. Upper case is refused: W3C forbids it, and Honeycomb would treat the
/// two spellings as different traces.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_id_has_two_spellings() {
        let id = TraceId::from_hex("4efaaf4d1e8720b39541901950019ee5").unwrap();
        assert_eq!(id.xray().as_str(), "1-4efaaf4d-1e8720b39541901950019ee5");
        assert_eq!(TraceId::from_xray("1-4efaaf4d-1e8720b39541901950019ee5"), Some(id));
        assert_eq!(TraceId::from_xray("1-4EFAAF4D-1E8720B39541901950019EE5"), Some(id));
        assert_eq!(id.to_string(), "4efaaf4d1e8720b39541901950019ee5");
    }

    #[test]
    fn anything_but_an_id_is_refused() {
        for text in ["", "0", "00000000000000000000000000000000", "4EFAAF4D1E8720B39541901950019EE5", "4efaaf4d1e87"] {
            assert_eq!(TraceId::from_hex(text), None, "{text}");
        }
        for text in
            ["zzz", "1-0-0", "2-4efaaf4d-1e8720b39541901950019ee5", "1-4efaaf4-d1e8720b39541901950019ee5", "1-é"]
        {
            assert_eq!(TraceId::from_xray(text), None, "{text}");
        }
        assert_eq!(SpanId::from_hex("0000000000000000"), None);
    }

    #[test]
    fn ten_thousand_ids_are_all_different_and_begin_with_their_second() {
        let source = IdSource::new();
        let traces: HashSet<_> = (0..10_000).map(|_| source.trace_id(0x1234_5678)).collect();
        assert_eq!(traces.len(), 10_000);
        assert!(traces.iter().all(|id| id.to_string().starts_with("12345678")));
        assert_eq!((0..10_000).map(|_| source.span_id()).collect::<HashSet<_>>().len(), 10_000);
    }

    #[test]
    fn ids_differ_even_without_the_system_generator() {
        let mut bytes = [0; 64];
        fill_without_the_system(&mut bytes);
        assert_eq!(bytes.chunks(8).collect::<HashSet<_>>().len(), 8);
    }
}

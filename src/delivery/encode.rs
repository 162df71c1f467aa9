//! Encoding and compression of a batch.

use std::io::{self, Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::backend::{Encoder, Payload, Transport};

/// Largest body of a payload after decompression.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// Returns the payloads of a batch as this transport sends them.
pub fn payloads<T>(encoder: &dyn Encoder<T>, batch: &[Arc<T>], transport: &dyn Transport) -> Vec<Payload> {
    transport.before_encoding();
    encoded(encoder, batch, transport.clock_offset(), transport.compresses())
}

/// The same, for a transport with this offset of its clock, which compresses payloads or does not.
pub(super) fn encoded<T>(encoder: &dyn Encoder<T>, batch: &[Arc<T>], clock_offset: i64, is_gzip: bool) -> Vec<Payload> {
    let mut payloads = encoder.encode(batch, clock_offset);
    if is_gzip {
        payloads.iter_mut().for_each(|payload| payload.bytes = gzip(&payload.bytes));
    }
    payloads
}

/// Returns the body of a stored payload, which is in gzip, as this transport sends it now.
///
/// # Errors
///
/// The bytes cannot be decompressed.
pub(super) fn prepared(bytes: &[u8], transport: &dyn Transport) -> io::Result<Vec<u8>> {
    let body = transport.readdress(gunzip(bytes)?);
    Ok(if transport.compresses() { gzip(&body) } else { body })
}

fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    GzDecoder::new(bytes).take(MAX_BODY).read_to_end(&mut body)?;
    Ok(body)
}

/// Compresses at level 1: about a tenth of the size, in 1 microsecond per span. Level 6 takes seven
/// times as long and saves little more.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::new(1));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_unpacks_to_the_same_bytes() {
        let bytes = "the same again and again, ".repeat(50);
        let packed = gzip(bytes.as_bytes());
        let mut unpacked = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, bytes);
        assert!(packed.len() < bytes.len() / 2);
    }
}

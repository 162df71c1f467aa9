//! Standard output, for the console backend.

use std::io::{self, Write};

/// Writes all bytes and flushes them.
///
/// # Errors
///
/// Returns an error if the reader of the output has closed it, or if the disk behind it is full.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

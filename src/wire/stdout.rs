//! Standard output, for the console backend.

use std::io::{self, Write};

/// Writes all bytes and makes sure that they are gone.
///
/// # Errors
///
/// Whoever read our output is no longer there, or the disk behind it is full.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

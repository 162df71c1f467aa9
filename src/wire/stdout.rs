//! Standard output, for the console backend and the commands.

use std::io::{self, Write};

use crate::terminal::{Terminal, width_of};

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

/// Returns what standard output can show.
pub fn terminal() -> Terminal {
    Terminal::of(&io::stdout())
}

/// Returns the columns of the terminal now.
pub fn width() -> usize {
    width_of(&io::stdout())
}

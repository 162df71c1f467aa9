//! Commands of the program, and what they share. They connect all other modules.

mod check;
mod config;
mod explain;
mod health;
mod init;
mod notifications;
mod reload;
mod renew;
mod serve;
mod summary;

use crate::text::Message;
use crate::wire::stdout;

pub use check::{Format, check};
pub use explain::{explain, painted};
pub use health::health;
pub use init::{default_file, init};
pub use serve::serve;

/// Error that ends the program: a message for people, and an exit status for scripts.
#[derive(Debug)]
pub struct Exit {
    /// Text to print.
    pub message: Message,
    /// Exit status: 2 for invalid settings and arguments, 1 for everything else.
    pub status: u8,
}

/// Writes `text` to standard output.
///
/// # Errors
///
/// The reader has closed the output, or the disk behind it is full.
pub fn print(text: &str) -> Result<(), Exit> {
    stdout::write(text.as_bytes()).map_err(|error| Exit::failed(format!("{error}: standard output")))
}

impl Exit {
    /// Creates an error with status 1.
    pub fn failed(message: impl Into<Message>) -> Self {
        Self { message: message.into(), status: 1 }
    }

    /// Creates an error with status 2, for invalid settings or arguments.
    pub fn wrong(message: impl Into<Message>) -> Self {
        Self { message: message.into(), status: 2 }
    }
}

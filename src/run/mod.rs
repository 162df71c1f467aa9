//! The commands, a file for each: what `main` calls. This is where everything is put together.

mod check;
mod config;
mod explain;
mod health;
mod init;
mod notifications;
mod reload;
mod serve;
mod summary;

use crate::text::Message;

pub use check::{Format, check};
pub use explain::explain;
pub use health::health;
pub use init::{default_file, init};
pub use serve::serve;

/// Why the program ends other than well: a line for people, and a status for scripts.
#[derive(Debug)]
pub struct Exit {
    /// What to print.
    pub message: Message,
    /// 2 for settings and arguments, 1 for everything else.
    pub status: u8,
}

impl Exit {
    /// Something failed.
    #[must_use]
    pub fn failed(message: impl Into<Message>) -> Self {
        Self { message: message.into(), status: 1 }
    }

    /// The settings or the arguments are wrong.
    #[must_use]
    pub fn wrong(message: impl Into<Message>) -> Self {
        Self { message: message.into(), status: 2 }
    }
}

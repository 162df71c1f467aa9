//! What the tests share: the real binary, a client that writes any bytes, and a collector that can misbehave.
//!
//! Nothing in here waits a fixed time. Whatever has to happen first is a condition with a time-out, and everything that
//! was started (a process, a thread, a directory) ends when its owner is dropped.

#![allow(dead_code, unused_imports, reason = "every test binary compiles its own copy of this and uses a part of it")]
#![allow(unreachable_pub, reason = "`pub` marks what tests may use; a test binary has no other outside")]

mod client;
mod cloudwatch;
mod collector;
mod connections;
mod output;
mod program;
mod temp_dir;
mod time;
mod xray_daemon;

use std::thread;
use std::time::{Duration, Instant};

pub use client::{Answer, Client, get};
pub use cloudwatch::{Call, CloudWatch, Event, Trick};
pub use collector::{AUTHORITY, Collector, Received, Reply, attribute, scope_name};
pub use connections::Connections;
pub use program::{Exit, Program, Setup, log_lines};
pub use temp_dir::TempDir;
pub use time::{http_date, unix_seconds};
pub use xray_daemon::{Datagram, Question, RULES_MODIFIED, XRayDaemon};

/// How long a test waits for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(8);

/// Asks every few milliseconds whether `condition` holds; false if it did not within `timeout`.
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

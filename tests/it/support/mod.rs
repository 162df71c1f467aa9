//! Code that the tests share: the real binary, a client that writes any bytes, and stand-ins for
//! the services that can misbehave.
//!
//! No code here waits a fixed time. A test waits for a condition, with a timeout. Every process,
//! thread and directory ends when its owner is dropped.

pub(crate) mod aws;
mod client;
mod cloudwatch;
mod collector;
mod connections;
mod http;
mod output;
mod program;
mod temp_dir;
mod terminal;
mod time;
pub(crate) mod told;
mod watched;
mod xray_daemon;
mod xray_endpoint;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use aws::Trick;
pub(crate) use client::{Answer, Client, get};
pub(crate) use cloudwatch::{CloudWatch, Event};
pub(crate) use collector::{AUTHORITY, Collector, Received, attribute, scope_name};
pub(crate) use connections::Connections;
pub(crate) use http::Reply;
pub(crate) use program::{Exit, Program, Setup, log_lines};
pub(crate) use temp_dir::TempDir;
pub(crate) use terminal::{Cell, Look, Screen, Terminal};
pub(crate) use time::{http_date, unix_seconds};
pub(crate) use xray_daemon::{RULES_MODIFIED, XRayDaemon};
pub(crate) use xray_endpoint::XRayEndpoint;

/// Maximum time that a test waits for an event that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// Checks `condition` every few milliseconds. Returns false if it did not hold within `timeout`.
pub(crate) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
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

/// The program of an example. Cargo puts examples next to the folder of the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/debug/deps/test");
    let path = folder.join("examples").join(name);
    assert!(path.exists(), "{} is not built; next: cargo build --example {name}", path.display());
    path
}

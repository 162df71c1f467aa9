//! Cruddur, the backend of the AWS bootcamp's week 2 ("Distributed Tracing"), as one program
//! without any tracing framework: every byte it sends about itself is written by code in this crate.
//!
//! A request becomes bytes on a wire in five stages. Data passes through them in this order; imports
//! follow the layers in ARCHITECTURE.md, which `tests/it/invariants.rs` reads:
//!
//! 1. [`http`]: a request arrives. One thread reads, routes and answers.
//! 2. [`trace`]: the request becomes spans. [`logging`] is the other half: log lines with the same ids.
//! 3. [`delivery`]: finished traces wait in one bounded queue per backend, and one worker per backend
//!    sends batches and counts.
//! 4. [`backends`]: a batch becomes the bytes of one destination. One file per backend.
//! 5. [`wire`]: the bytes leave, with retries.
//!
//! Around them: [`activities`] is the application being traced, [`client`] calls other services for
//! it, [`settings`] reads telemetry.toml and the environment, [`page`] shows what happened, and
//! [`run`] puts everything together, a file for each command.
//!
//! To read the code, follow a request: [`http::server`], [`trace::request_trace`], [`delivery`],
//! [`backends::otlp_http`].
//!
//! This is not a tracing library: for a program of your own, take the `opentelemetry` crates.

// Sockets are passed on, signals are caught, and files are read in the ways of Unix. Elsewhere the
// library is empty, and main.rs has the only error.
#![cfg(unix)]

/// The targets in `tests/fuzz` use the name of the crate.
#[cfg(any(test, fuzzing))]
extern crate self as cruddur;

pub mod activities;
pub mod backends;
pub mod cli;
pub mod client;
pub mod delivery;
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets.rs"]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod http;
pub mod logging;
pub mod page;
mod plain_json;
pub mod run;
pub mod settings;
mod sync;
pub mod terminal;
pub mod text;
pub mod trace;
pub mod wire;

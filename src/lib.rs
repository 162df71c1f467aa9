//! Cruddur, the backend of the AWS bootcamp's week 2 ("Distributed Tracing"), as one program without any tracing
//! framework: every byte it sends about itself is written by code in this crate.
//!
//! A request becomes bytes at somebody else's door in five stages, each a module that knows only the next one:
//!
//! 1. [`http`]: a request arrives. One thread reads, routes and answers; it waits for nobody but, no
//!    longer than a time-out, another service that a request is about ([`http::client`]).
//! 2. [`trace`]: the request becomes spans: ids, the caller's context, a sampling decision, guards that end by
//!    themselves. [`logging`] is its other half: log lines with the same ids.
//! 3. [`delivery`]: finished traces wait in one bounded queue a backend, and a worker each sends batches and counts.
//! 4. [`backends`]: a batch becomes somebody's bytes. One file a backend, and one line in a list.
//! 5. [`wire`]: the bytes leave, with retries.
//!
//! Around them: [`activities`] is the application being watched, [`settings`] says what is on, [`page`] shows what
//! happened, [`explain`] shows a sample request on its whole way, [`health`] asks a server that runs, [`run`] puts everything
//! together. To read the code, follow a request: [`http::server`],
//! [`trace::request_trace`], [`delivery`], [`backends::otlp_http`].
//!
//! This is not a tracing library: for a program of your own, take the `opentelemetry` crates.

pub mod activities;
pub mod backends;
pub mod cli;
pub mod delivery;
pub mod explain;
#[cfg(test)]
mod golden;
pub mod health;
pub mod http;
pub mod logging;
pub mod page;
mod plain_json;
mod printable;
pub mod run;
pub mod settings;
mod sync;
pub mod trace;
pub mod wire;

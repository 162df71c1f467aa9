//! Stage 1: a request arrives, and its response leaves.
//!
//! In: TCP connections. Out: one response per request, and one finished trace.
//!
//! One thread answers all requests, and it never waits: not for a client (bodies that are not there
//! yet, and responses that a client does not read, go to threads of their own) and not for a backend.
//! It only waits for another service that a request is about ([`crate::client`]), no longer than a
//! time-out.

pub mod body;
pub mod cors;
pub mod head;
pub mod listener;
pub mod panics;
pub mod response;
pub mod routes;
pub mod semantics;
pub mod send;
pub mod server;
mod spawn;
mod telemetry;

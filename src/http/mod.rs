//! Stage 1: receives requests and sends responses.
//!
//! In: TCP connections. Out: one response per request, and one finished trace.
//!
//! One thread answers all requests. It never waits for a client: bodies that have not been received
//! yet, and responses that a client is slow to read, are left to threads of their own. Nor does it
//! wait for a backend. It waits only for another service that a request needs ([`crate::client`]),
//! no longer than a timeout.

pub mod body;
mod closing;
pub mod cors;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/http.rs"]
pub(crate) mod fuzz;
pub mod head;
mod json_fields;
#[cfg(target_os = "linux")]
mod keeper;
pub mod listener;
pub mod panics;
pub mod peers;
pub mod process;
mod render;
pub mod response;
pub mod routes;
pub mod semantics;
pub mod send;
pub mod server;
mod servers;
pub mod signals;
mod spawn;
mod telemetry;
pub mod ticket;

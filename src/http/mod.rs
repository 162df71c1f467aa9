//! Stage 1: a request arrives, and its answer leaves.
//!
//! In: TCP connections. Out: one answer a request, and one finished trace.
//!
//! One thread answers all requests, and it never waits: not for a client (bodies that are not there yet, answers that
//! nobody reads, go to threads of their own) and not for a backend. What it does wait for is the service that a request
//! is about, in [`client`], and that no longer than a time-out.

pub mod answer;
pub mod body;
pub mod client;
pub mod cors;
mod handover;
pub mod head;
pub mod listener;
pub mod routes;
pub mod semantics;
pub mod send;
pub mod server;

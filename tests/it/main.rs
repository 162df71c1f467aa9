//! Everything that is tested from outside, in one binary: it is linked once, and what the tests share is compiled once and
//! has no line that nobody uses.
//!
//! The tests of this binary are threads of one process. They have nothing in common but that: each starts programs of its own
//! in directories of its own, and no test changes the environment or the directory of this process.

mod across_services;
mod check;
mod cloudwatch_delivery;
mod documents;
mod front_door;
mod health;
mod honeycomb_delivery;
mod http_cors;
mod http_errors;
mod http_hostile;
mod http_routes;
mod invariants;
mod page_api;
mod propagation;
mod settings_fuzz;
mod settings_switch;
mod settings_traps;
mod start_and_settings;
mod static_binary;
mod support;
mod tour;
mod trace_context_suite;
mod xray_delivery;
mod xray_sampling;

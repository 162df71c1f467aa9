//! All tests from outside the program, in one binary. It is linked once. The code that the tests
//! share is compiled once, and the compiler reports shared code that is unused.
//!
//! The tests of this binary run as threads of one process and share nothing else. Each test starts
//! its own programs in its own directories. No test changes the environment or the working
//! directory of this process.

mod across_services;
mod check;
mod cloudwatch_delivery;
mod command_line;
mod deployments;
mod documents;
mod front_door;
mod front_door_limits;
mod health;
mod honeycomb_delivery;
mod http_cors;
mod http_errors;
mod http_hostile;
mod http_routes;
mod invariants;
mod mapping;
mod page_access;
mod page_api;
mod propagation;
mod settings_fuzz;
mod settings_switch;
mod settings_traps;
mod smallest_otlp;
mod spool;
mod start_and_settings;
mod static_binary;
mod support;
mod terminal;
mod tour;
mod trace_context_suite;
mod xray_delivery;
mod xray_otlp_delivery;
mod xray_sampling;

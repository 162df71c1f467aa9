//! Any bytes as telemetry.toml, for a fuzzer that watches code coverage.

#![no_main]

#[path = "property.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    property::holds(content);
});

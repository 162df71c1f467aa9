//! Any bytes as the input of the target that `FUZZ_TARGET` names, for a fuzzer that watches which code
//! they reach.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET=name, one of cruddur::fuzz::TARGETS");
    cruddur::fuzz::target(&name).unwrap_or_else(|| panic!("no target {name}"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));

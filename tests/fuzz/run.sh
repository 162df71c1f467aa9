#!/usr/bin/env bash
# Runs the fuzz targets one after the other: tests/fuzz/run.sh SECONDS [TARGET ...]. New inputs are kept in
# target/fuzz-corpus. An input that breaks a promise is written to tests/fuzz/artifacts; add it to corpus/ with the fix.
# Needs cargo-fuzz and a nightly compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:?how many seconds for each target?}
shift
targets=("$@")
[ $# -gt 0 ] || targets=($(ls tests/fuzz/corpus))
found=${CARGO_TARGET_DIR:-target}/fuzz-corpus
mkdir -p tests/fuzz/artifacts
# Without a sanitizer: the program has no `unsafe`, and runs twice as many inputs.
cargo +nightly fuzz build --fuzz-dir tests/fuzz --sanitizer none target
for target in "${targets[@]}"; do
    echo "== $target"
    mkdir -p "$found/$target"
    # The first folder receives the new inputs.
    FUZZ_TARGET=$target nice -n 19 cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none target \
        "$found/$target" "tests/fuzz/corpus/$target" -- \
        -artifact_prefix="tests/fuzz/artifacts/$target-" -max_total_time="$seconds" -max_len=20000 -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done

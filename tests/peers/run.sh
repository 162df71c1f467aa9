#!/usr/bin/env bash
# Tests the program against software of other projects. Two independent decoders read the bytes for
# Honeycomb: strict protobuf JSON from PyPI, and the types of the opentelemetry-proto crate. The
# bytes for X-Ray and for CloudWatch Logs are put into stand-ins of the services and read back from
# them. AWS's own signer verifies the signed OTLP for X-Ray.
#
# Does not build the program: it needs target/release/cruddur or target/debug/cruddur. Everything
# happens on loopback, except that the first run downloads the decoders into target/peers-venv and
# target/peers-otlp-proto.
set -euo pipefail

cd "$(dirname "$0")/../.."
peers=$PWD/tests/peers
target=${CARGO_TARGET_DIR:-target}
venv=$target/peers-venv
# Exact versions; a change creates a new venv. ministack requires the botocore of this boto3.
packages=(opentelemetry-proto==1.45.1 'moto[server]==5.2.5' boto3==1.43.106 ministack==1.5.33 trustme==1.2.1)

fail() {
    echo "peer check: $*" >&2
    exit 1
}

# The newer of the two, so that an old release build is not tested in place of the current code.
cruddur=$(ls -t "$target/release/cruddur" "$target/debug/cruddur" 2>/dev/null | head -n 1 || true)
[ -n "$cruddur" ] || fail "no $target/release/cruddur; next: cargo build --release"
cruddur=$(realpath "$cruddur")

python=$venv/bin/python
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" >"$venv/packages"
fi

cargo build --quiet --locked --manifest-path "$peers/otlp_proto/Cargo.toml" --target-dir "$target/peers-otlp-proto"
otlp_proto=$target/peers-otlp-proto/debug/otlp_proto

work=$(mktemp -d)
stop_all() {
    # Only running jobs of this shell. The id of a process that has ended may belong to another one
    # now.
    for pid in $(jobs -pr); do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap stop_all EXIT

# wait_for FILE PATTERN PID: waits until a line of FILE matches, while PID runs, for at most ten
# seconds.
wait_for() {
    for _ in $(seq 200); do
        grep -qs "$2" "$1" && return
        kill -0 "$3" 2>/dev/null || break
        sleep 0.05
    done
    cat "$1" >&2 2>/dev/null || true
    fail "no '$2' in $1"
}

# read_back COUNT DECODER BODY...: checks that the decoder accepts every body and finds COUNT spans.
read_back() {
    local count=$1 found
    shift
    "$@" | tee "$work/verdict"
    found=$(awk '{ sum += $2 } END { print sum }' "$work/verdict")
    [ "$found" = "$count" ] || fail "$count spans sent, $found read back by $1"
}

read_back 3 "$otlp_proto" tests/data/otlp/trace.json tests/data/otlp/official_trace.json

# The smallest exporter. rustc alone builds it, so it has no crate beyond the standard library.
smallest=$work/smallest
mkdir "$smallest"
rustc --edition 2024 -o "$work/smallest_otlp" examples/smallest_otlp.rs
"$python" "$peers/capture_otlp.py" "$smallest" &
capture=$!
wait_for "$smallest/port" . "$capture"
"$work/smallest_otlp" "127.0.0.1:$(cat "$smallest/port")" >/dev/null
read_back 2 "$python" "$peers/otlp_json_format.py" "$smallest"/body-*.json
read_back 2 "$otlp_proto" "$smallest"/body-*.json
kill -TERM "$capture"
wait "$capture" || true

for compression in none gzip; do
    bodies=$work/$compression
    mkdir "$bodies"
    "$python" "$peers/capture_otlp.py" "$bodies" &
    capture=$!
    wait_for "$bodies/port" . "$capture"

    printf '[console]\nenabled = false\n[honeycomb]\nenabled = true\n' >"$work/telemetry.toml"
    env -i PATH="$PATH" \
        HONEYCOMB_API_KEY=no-real-key \
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:$(cat "$bodies/port")" \
        OTEL_EXPORTER_OTLP_COMPRESSION="$compression" \
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,with.comma=a%2Cb" \
        "$cruddur" --config "$work/telemetry.toml" --listen 127.0.0.1:0 >"$bodies/stdout" 2>"$bodies/stderr" &
    server=$!
    wait_for "$bodies/stderr" 'listening on http://' "$server"
    address=$(grep -o 'listening on http://[^ ]*' "$bodies/stderr" | head -n 1)

    "$python" "$peers/drive.py" "${address#listening on }"
    kill -TERM "$server"
    wait "$server" || fail "the server ended with status $?: $(cat "$bodies/stderr")"
    counts=$(grep 'honeycomb: .* delivered, ' "$bodies/stderr") || fail "no line of counts"
    case $counts in
        *" 0 refused, 0 dropped, 0 sampled out"*) ;;
        *) fail "not all arrived: $counts" ;;
    esac
    delivered=$(sed 's/.*honeycomb: \([0-9]*\)[a-z ]* delivered.*/\1/' <<<"$counts")

    # Every span that the program counted is in a body that can be decoded.
    read_back "$delivered" "$python" "$peers/otlp_json_format.py" "$bodies"/body-*.json
    read_back "$delivered" "$otlp_proto" "$bodies"/body-*.json
    [ "$delivered" -ge 50 ] || fail "only $delivered spans for 50 requests"
    kill -TERM "$capture"
    wait "$capture" || true
    echo "peer check: compression $compression: $delivered spans of 50 requests, decoded by both, encoded back the same"
done

"$python" "$peers/xray_moto.py" "$cruddur"
"$python" -B "$peers/cloudwatch_standins.py" "$cruddur"
"$python" -B "$peers/xray_otlp_botocore.py" "$cruddur"

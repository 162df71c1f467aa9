#!/usr/bin/env bash
# Tests the page in headless Chromium. Does not build the program: it needs target/release/cruddur
# or target/debug/cruddur. Needs chromium (Debian: apt-get install chromium) and Node.js 20. npm
# installs playwright-core.
set -euo pipefail
cd "$(dirname "$0")"

chromium=${CHROMIUM:-$(command -v chromium || command -v google-chrome || true)}
[ -n "$chromium" ] || { echo "browser check: no chromium; next: apt-get install chromium, or name one with CHROMIUM" >&2; exit 1; }
[ -d node_modules/playwright-core ] || npm ci --no-audit --no-fund --silent
CHROMIUM=$chromium timeout 300 node --test --test-timeout=240000 --test-concurrency=1 --test-reporter=spec page.test.mjs access.test.mjs

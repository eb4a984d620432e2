#!/usr/bin/env bash
# Measures the release binary on this machine; prints a table and keeps it in bench/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
AMPHORA_BIN=${AMPHORA_BIN:-$PWD/target/release/amphora} \
  cargo run --release --locked --quiet -p amphora-bench -- bench/results "$@"

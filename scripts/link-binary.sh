#!/usr/bin/env bash
# With CARGO_TARGET_DIR set elsewhere, `target/release/amphora` still leads to the release binary.
set -euo pipefail
cd "$(dirname "$0")/.."
built=${CARGO_TARGET_DIR:-target}/release/amphora
if [ ! -e target/release/amphora ] || [ ! "$built" -ef target/release/amphora ]; then
  mkdir -p target/release
  ln -sfn "$(realpath "$built")" target/release/amphora
fi

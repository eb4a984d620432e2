#!/usr/bin/env bash
# Installs the drivers that tests/drivers needs, at the versions pinned there, outside the checkout: once for a set of pins.
# Prints the folder: python/bin/python and node_modules are in it. The Debian packages are scripts/setup.sh's.
set -euo pipefail
cd "$(dirname "$0")/../tests/drivers"

for program in python3 node npm java javac perl ruby; do
  command -v "$program" >/dev/null || { echo "drivers: $program is missing; run 'make setup'" >&2; exit 1; }
done
pins=$(cat python/requirements.txt node/package.json node/package-lock.json <(python3 --version) | sha256sum | cut -c1-16)
folder="${XDG_CACHE_HOME:-$HOME/.cache}/amphora/drivers/$pins"
if [ ! -e "$folder/complete" ]; then
  echo "drivers: installing into $folder" >&2
  mkdir -p "$folder"
  exec 9>"$folder/lock"
  flock 9
  if [ ! -e "$folder/complete" ]; then
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --no-input -r python/requirements.txt >&2
    cp node/package.json node/package-lock.json "$folder"
    npm ci --prefix "$folder" --no-audit --no-fund --silent >&2
    touch "$folder/complete"
  fi
fi
echo "$folder"

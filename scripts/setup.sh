#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu machine lacks, compiles RocksDB once, and fetches the crates.
# Needs: Rust (rustup), Python 3, git. Safe to run again; does nothing when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  clang libclang-dev mold make pkg-config   # to compile: bindgen needs libclang; mold links
  postgresql postgresql-client              # what Amphora is compared with; psql, in the tests and the tour
  iproute2 iptables                         # network namespaces, for partitions in the tests
  util-linux e2fsprogs                      # full disks and losses of power, in the tests
  python3-venv nodejs                       # drivers, in the tests (scripts/drivers.sh installs the rest)
  openjdk-17-jdk-headless libpostgresql-jdbc-java libdbd-pg-perl
  ruby-activerecord ruby-pg
)
# nodejs brings npm with it where it is not Debian's own.
command -v npm >/dev/null || packages+=(npm)
# Any JDK does.
if command -v javac >/dev/null; then packages=("${packages[@]/openjdk-17-jdk-headless/}"); fi
missing=()
for package in "${packages[@]}"; do
  [ -n "$package" ] || continue
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install these with your package manager, then run again: ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
  echo "setup: Rust is missing; install it from https://rustup.rs, then run again" >&2
  exit 1
fi
command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
scripts/rocksdb.sh
cargo fetch --locked --quiet
scripts/drivers.sh >/dev/null

#!/usr/bin/env bash
# Compiles RocksDB once per machine and links the result into this checkout as `.rocksdb/`.
#
# RocksDB is 342 C++ files: about 20 minutes on two cores, and cargo would compile it again for every
# profile and every target folder. Here it is compiled once, kept in the user's cache folder, and
# `.cargo/config.toml` points `librocksdb-sys` at it, for dev, release, test and CI alike.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
version=0.25.0        # of the `rocksdb` crate; must equal the pin in Cargo.toml
cpu=x86-64-v2         # CRC32 needs SSE4.2; must equal the target-cpu in .cargo/config.toml
[ "$(uname -m)" = x86_64 ] || cpu=generic
cache=${AMPHORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/amphora}
dir=$cache/rocksdb-$version-$cpu

mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
if [ ! -s "$dir/librocksdb.a" ]; then
  echo "compiling RocksDB once for this machine (about 20 minutes on two cores), into $dir"
  build=$dir/build
  mkdir -p "$build/src"
  : >"$build/src/lib.rs"
  cat >"$build/Cargo.toml" <<EOF
[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2024"
[dependencies]
rocksdb = { version = "=$version", default-features = false, features = ["bindgen-runtime", "lz4", "zstd"] }
[profile.release]
opt-level = 2
debug = false
[workspace]
EOF
  # The workspace's lock file, so that it is the same librocksdb-sys; cargo drops what it does not need.
  [ -f "$checkout/Cargo.lock" ] && cp "$checkout/Cargo.lock" "$build/Cargo.lock"
  (cd "$build" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC RUSTFLAGS="-C target-cpu=$cpu" \
    CARGO_TARGET_DIR="$build/target" cargo build --release --quiet)
  lib=$(find "$build/target/release/build" -path '*librocksdb-sys*/out/librocksdb.a' | head -n 1)
  cp "$lib" "$dir/librocksdb.a.part"
  mv "$dir/librocksdb.a.part" "$dir/librocksdb.a"
  rm -rf "$build"
fi
ln -sfn "$dir" "$checkout/.rocksdb"

#!/usr/bin/env bash
# Measures the release binary side by side with PostgreSQL 15; prints a table, keeps the run in bench/results/.
#   BENCH_ROUNDS=3 BENCH_SECONDS=3   rounds, and the seconds of each run (a default run takes about ten minutes)
#   BENCH_ONLY=TPC-B,COPY            only lines with one of these in their name; also: memory, cluster
set -euo pipefail
cd "$(dirname "$0")/.."
pg_bin=${PG_BIN:-/usr/lib/postgresql/15/bin}
if [ ! -x "$pg_bin/initdb" ] || ! command -v pgbench >/dev/null; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "bench: installing PostgreSQL 15"
  # The package would start a server of its own; this measures its own three.
  $sudo mkdir -p /etc/postgresql-common
  $sudo sh -c 'grep -qs create_main_cluster /etc/postgresql-common/createcluster.conf ||
    echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf'
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends postgresql-15 postgresql-contrib >/dev/null
fi
AMPHORA_BIN=${AMPHORA_BIN:-$PWD/target/release/amphora} \
  cargo run --release --locked --quiet -p amphora-bench -- bench/results "$@"

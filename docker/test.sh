#!/usr/bin/env bash
# Tries the image and the compose cluster for real: up, latency, the leader killed, a network cut, healed.
#
#     docker/test.sh            `make docker-test`; needs root where no Docker daemon runs
#
# Where there is no Docker, Debian's is installed; where no daemon runs, one is started with a folder of its own and
# stopped at the end. Where no registry can be reached, the base image is made with debootstrap (and kept in the user's
# cache folder). The binary is AMPHORA_BIN, or target/release/amphora: nothing is compiled inside Docker here.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
daemon=""
export COMPOSE_PROJECT_NAME=amphora-test AMPHORA_IMAGE=amphora:test
export N1_SQL=${N1_SQL:-25433} N2_SQL=${N2_SQL:-25434} N3_SQL=${N3_SQL:-25435}
export N1_HTTP=${N1_HTTP:-28433} N2_HTTP=${N2_HTTP:-28434} N3_HTTP=${N3_HTTP:-28435}
ports=("$N1_SQL" "$N2_SQL" "$N3_SQL")
http_ports=("$N1_HTTP" "$N2_HTTP" "$N3_HTTP")

say() { echo "docker-test: $*"; }
checks=0
held() { checks=$((checks + 1)); echo "  ✓ $*"; }
fail() {
  echo "  ✗ $*" >&2
  for node in n1 n2 n3 load; do
    echo "--- the last lines of $node" >&2
    compose logs --no-color --tail 8 "$node" >&2 2>/dev/null || true
  done
  exit 1
}
now() { date +%s%3N; }

finish() {
  compose down --volumes --timeout 5 >/dev/null 2>&1 || true
  docker image rm amphora:test >/dev/null 2>&1 || true
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    # A daemon leaves its bridge and its firewall behind, and forwarding closed to everybody else.
    if [ -e "$scratch/firewall" ]; then iptables-restore <"$scratch/firewall" || true; fi
    if [ -e "$scratch/no-bridge" ]; then ip link delete docker0 2>/dev/null || true; fi
  fi
  rm -rf "$scratch"
}
trap finish EXIT

apt_install() {
  say "installing $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

start_docker() {
  if docker info >/dev/null 2>&1; then return; fi
  [ "$(id -u)" = 0 ] || { echo "docker-test: no Docker daemon can be reached, and only root can start one" >&2; exit 1; }
  command -v dockerd >/dev/null || apt_install docker.io iptables
  export DOCKER_HOST=unix://$scratch/docker.sock
  iptables-save >"$scratch/firewall"
  # Tables that nobody has used yet are not in it.
  for table in filter nat; do
    grep -q "^\*$table" "$scratch/firewall" || printf '*%s\n:OUTPUT ACCEPT\nCOMMIT\n' "$table" >>"$scratch/firewall"
  done
  if ! grep -q '^:FORWARD' "$scratch/firewall"; then
    sed -i 's/^\*filter$/&\n:FORWARD ACCEPT/' "$scratch/firewall"
  fi
  ip link show docker0 >/dev/null 2>&1 || touch "$scratch/no-bridge"
  for driver in overlay2 vfs; do
    dockerd --host "$DOCKER_HOST" --data-root "$scratch/data" --exec-root "$scratch/exec" --pidfile "$scratch/pid" \
      --storage-driver "$driver" >"$scratch/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 100); do
      if docker info >/dev/null 2>&1; then
        say "started a daemon of its own ($driver)"
        return
      fi
      kill -0 "$daemon" 2>/dev/null || break
      sleep 0.2
    done
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    daemon=""
  done
  tail -n 20 "$scratch/dockerd.log" >&2
  exit 1
}

compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose -f docker/compose.yaml "$@"
  else
    docker-compose -f docker/compose.yaml "$@"
  fi
}

# The base: Debian's own image, or the same made from its packages.
base_image() {
  image=debian:bookworm-slim
  if docker image inspect "$image" >/dev/null 2>&1 || timeout 60 docker pull -q "$image" >/dev/null 2>&1; then return; fi
  image=amphora-base:bookworm
  local tar=${AMPHORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/amphora}/docker-base-bookworm.tar.gz
  if [ ! -s "$tar" ]; then
    say "no registry can be reached; making the base image with debootstrap"
    command -v debootstrap >/dev/null || apt_install debootstrap
    mkdir -p "$(dirname "$tar")"
    debootstrap --variant=minbase bookworm "$scratch/base" >"$scratch/debootstrap.log" 2>&1 \
      || { tail -n 5 "$scratch/debootstrap.log" >&2; exit 1; }
    rm -rf "$scratch"/base/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/locale,usr/share/man}/*
    tar -C "$scratch/base" -czf "$tar.part" .
    mv "$tar.part" "$tar"
    rm -rf "$scratch/base"
  fi
  docker import "$tar" "$image" >/dev/null
}

sql() { # NODE STATEMENT: what it gives, or its error
  psql -X -q -A -t -v VERBOSITY=verbose -h 127.0.0.1 -p "${ports[$(($1 - 1))]}" -U amphora -d amphora -c "$2" 2>&1
}

health() {
  docker inspect -f '{{.State.Health.Status}}' "$(compose ps -q "$1")" 2>/dev/null || echo missing
}

wait_healthy() { # LIMIT NODE…
  local limit=$1 start node
  start=$(now)
  shift
  for node in "$@"; do
    until [ "$(health "$node")" = healthy ]; do
      [ $(($(now) - start)) -lt $((limit * 1000)) ] || fail "$node is $(health "$node") after $limit s"
      sleep 0.2
    done
  done
  took=$(($(now) - start))
}

eventually() { # LIMIT WHAT COMMAND…: until it succeeds
  local limit=$1 what=$2 start
  start=$(now)
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $(($(now) - start)) -lt $((limit * 1000)) ] || fail "not within $limit s: $what"
    sleep 0.2
  done
  took=$(($(now) - start))
}

voters() { [ "$(sql 1 "SELECT count(*) FROM amphora.nodes WHERE role <> 'learner' AND state = 'alive'")" = 3 ]; }
leader() { # NODE that is asked: the number of the one that leads
  local port index
  port=$(sql "$1" "SELECT split_part(pg_address, ':', 2) FROM amphora.nodes WHERE role = 'leader'")
  for index in 1 2 3; do
    if [ "${ports[$((index - 1))]}" = "$port" ]; then echo "$index"; fi
  done
}
milliseconds() { # NODE STATEMENT: of the fastest of five, as psql measures it
  local runs
  runs=$(for _ in 1 2 3 4 5; do echo "$2;"; done)
  printf '\\timing on\n%s\n' "$runs" | psql -X -q -A -t -h 127.0.0.1 -p "${ports[$(($1 - 1))]}" -U amphora -d amphora \
    | sed -n 's/^Time: \([0-9]*\)\..*/\1/p' | sort -n | head -n 1
}
metrics() { # NODE: what Prometheus is told, which asks by the service's name
  exec 3<>"/dev/tcp/127.0.0.1/${http_ports[$(($1 - 1))]}"
  printf 'GET /metrics HTTP/1.1\r\nHost: n%s:8433\r\nConnection: close\r\n\r\n' "$1" >&3
  cat <&3
  exec 3>&-
}
alone() { docker/partition.sh status | grep -q 'n3 .* cut .*1 of 3 nodes alive'; }
strong() { sql "$1" "UPDATE accounts SET balance = balance WHERE id = 1 RETURNING 'written'" | grep -qx written; }
views() { sql "$1" "SELECT n FROM page_views WHERE page = 'home'"; }
same_views() { [ "$(views 1)" = "$(views 2)" ] && [ "$(views 2)" = "$(views 3)" ]; }

start_docker
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || apt_install docker-compose
command -v psql >/dev/null || apt_install postgresql-client

binary=${AMPHORA_BIN:-target/release/amphora}
[ -x "$binary" ] || { echo "docker-test: $binary is missing: make build, or set AMPHORA_BIN" >&2; exit 1; }
base_image
mkdir "$scratch/context"
install -s -m 0755 "$binary" "$scratch/context/amphora"
DOCKER_BUILDKIT=0 docker build -q -f docker/Dockerfile --target prebuilt --build-arg RUNTIME_IMAGE="$image" -t amphora:test \
  "$scratch/context" >/dev/null 2>"$scratch/build.log" || { cat "$scratch/build.log" >&2; exit 1; }
say "$binary on $image: $(($(docker image inspect -f '{{.Size}}' amphora:test) >> 20)) MB, of which $(($(docker image inspect -f '{{.Size}}' "$image") >> 20)) MB are the base"
[ "$(docker run --rm --entrypoint id amphora:test -u)" = 10001 ] || fail "the image's user is root"
held "it does not run as root"

start=$(now)
compose up -d --no-build >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log" >&2; exit 1; }
wait_healthy 60 n1 n2 n3
up=$(($(now) - start))
[ "$up" -le 30000 ] || fail "up and healthy after $up ms"
held "three nodes up and healthy after $up ms"
eventually 30 "three voters" voters
held "all three vote"
eventually 30 "the load has made its tables" strong 1

leaders=$(for node in 1 2 3; do metrics "$node"; done | grep -c '^amphora_raft_is_leader 1' || true)
[ "$leaders" = 1 ] || fail "$leaders nodes tell Prometheus that they lead"
held "Prometheus may ask each node by its name; one leads"

near=$(milliseconds "$(leader 1)" "UPDATE page_views SET n = n + 0")
far=$(milliseconds 3 "UPDATE accounts SET balance = balance WHERE id = 2")
[ "$far" -ge 40 ] && [ "$near" -lt 40 ] || fail "a strong write through us takes $far ms, a leaderless one in eu $near ms"
held "us is far away: a strong write there takes $far ms, a leaderless write $(milliseconds 3 "UPDATE page_views SET n = n + 0") ms"

fallen=$(leader 1)
other=$((fallen % 2 + 1))
say "docker kill n$fallen, the leader"
docker kill "$(compose ps -q "n$fallen")" >/dev/null
eventually 30 "n$other writes strong tables" strong "$other"
held "n$other writes strong tables $took ms later"
docker start "$(compose ps -q "n$fallen")" >/dev/null
wait_healthy 60 "n$fallen"
held "n$fallen is back and healthy after $took ms"
eventually 30 "three voters" voters

docker/partition.sh cut n3
eventually 30 "the rest writes strong tables" strong 1
held "n1 and n2 write strong tables"
error=$(sql 3 "UPDATE accounts SET balance = balance WHERE id = 1" || true)
grep -q 57P03 <<<"$error" || fail "n3, alone, says: $error"
held "n3, alone, refuses to (57P03)"
before=$(views 3)
sql 3 "UPDATE page_views SET n = n + 1 WHERE page = 'home'" >/dev/null || fail "n3 does not count"
[ "$(views 3)" -gt "$before" ] || fail "n3 does not count"
held "and goes on counting views"
eventually 30 "n3 sees that it is alone" alone
docker/partition.sh status
docker/partition.sh heal
wait_healthy 60 n3
eventually 30 "n3 writes strong tables" strong 3
held "healed: n3 is healthy and writes strong tables again"

docker stop -t 20 "$(compose ps -q load)" >/dev/null
last=$(compose logs --no-color load | grep acknowledged) || fail "the load ended without its last line"
counted=$(sed 's/.* \([0-9]*\) views.*/\1/' <<<"$last")
eventually 30 "all nodes count the same" same_views
[ "$(views 1)" -ge $((counted + 1)) ] || fail "$(views 1) views, and $counted were acknowledged"
held "all nodes count $(views 1) views; $counted were acknowledged to the load"
for node in 1 2 3; do
  total=$(sql "$node" "SELECT sum(balance) FROM accounts")
  [ "$total" = 8000 ] || fail "n$node says that all accounts hold $total"
done
held "all accounts hold 8000, seen from each node"
say "all $checks checks held"

#!/usr/bin/env bash
# Cuts nodes of the compose cluster off from their peers, joins them again, and shows who can talk to whom.
#
#     docker/partition.sh cut [NODE…]     from the peers' network (n3, which is all of region us, if none is named)
#     docker/partition.sh heal [NODE…]    back to it (all, if none is named)
#     docker/partition.sh status
#
# A node that is cut off can still be asked by its clients: they are on another network.
set -euo pipefail
project=${COMPOSE_PROJECT_NAME:-docker}
nodes=(n1 n2 n3)

container() {
  local id
  id=$(docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1")
  [ -n "$id" ] || { echo "partition: there is no container of $1 in the project $project; is the cluster up?" >&2; exit 1; }
  echo "$id"
}

network() {
  docker network ls --format '{{.Name}}' --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.network=peers"
}

is_joined() {
  docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}' "$(container "$1")" \
    | grep -qx "$(network)"
}

case "${1:-}" in
  cut)
    shift
    for node in "${@:-n3}"; do
      if is_joined "$node"; then docker network disconnect "$(network)" "$(container "$node")"; fi
      echo "$node is cut off from its peers"
    done ;;
  heal)
    shift
    [ $# -gt 0 ] || set -- "${nodes[@]}"
    for node in "$@"; do
      is_joined "$node" && continue
      address=$(docker inspect -f '{{index .Config.Labels "amphora.peer"}}' "$(container "$node")")
      docker network connect --ip "$address" "$(network)" "$(container "$node")"
      echo "$node is joined to its peers again"
    done ;;
  status)
    printf '%-5s %-9s %-8s %s\n' node process peers 'what it sees'
    for node in "${nodes[@]}"; do
      id=$(container "$node")
      process=$(docker inspect -f '{{.State.Status}}' "$id")
      peers=cut
      if is_joined "$node"; then peers=joined; fi
      sees=-
      if [ "$process" = running ]; then
        alive=$(docker exec "$id" /usr/local/bin/amphora node list | awk -F '\t' 'NR > 1 && $3 == "alive"' | wc -l)
        sees="$alive of ${#nodes[@]} nodes alive: leaderless tables only"
        if [ $((alive * 2)) -gt ${#nodes[@]} ]; then sees="$alive of ${#nodes[@]} nodes alive: strong and leaderless tables"; fi
      fi
      printf '%-5s %-9s %-8s %s\n' "$node" "$process" "$peers" "$sees"
    done ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2 ;;
esac

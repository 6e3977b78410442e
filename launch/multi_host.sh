#!/usr/bin/env bash
# One Ray cluster over several hosts, for as long as one tinyr1v command runs. Start it on each host:
#
#   NODE_RANK=0 NUM_NODES=2 HEAD_ADDRESS=10.0.0.1 launch/multi_host.sh train --config FILE run.folder=/shared/runs
#   NODE_RANK=1 NUM_NODES=2 HEAD_ADDRESS=10.0.0.1 launch/multi_host.sh
#
# Rank 0 is the head: it waits for the others, runs the command, and ends Ray on its host on any exit. The others end
# when the head has gone. Only Ray processes started here are ended, so that hosts may be shared.
# All hosts need the same files (run.folder on shared storage), the same environment, and the same token:
# RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; `ray get-auth-token --generate` makes one.
#
#   HEAD_PORT   port of the head on HEAD_ADDRESS (default 6379)
#   WAIT_S      longest wait for all hosts (default 600)
#   RAY_TMP     folder for Ray's sockets and logs (default /tmp/ray-tinyr1v-PORT; short, since sockets' paths must be)
#   RAY_AUTH_MODE=disabled switches authentication off: whoever reaches the ports can then run code as you.
set -euo pipefail

: "${NODE_RANK:?set it to 0 on the head and to 1, 2, ... on the others}"
: "${NUM_NODES:?set it to the number of hosts}"
: "${HEAD_ADDRESS:?set it to the head, an address that all hosts reach}"
HEAD_PORT=${HEAD_PORT:-6379}
WAIT_S=${WAIT_S:-600}
RAY_TMP=${RAY_TMP:-/tmp/ray-tinyr1v-$HEAD_PORT}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
export RAY_ADDRESS=$HEAD_ADDRESS:$HEAD_PORT

log=$RAY_TMP.$NODE_RANK.log
ray_pid=
command_pid=

say() { printf 'multi_host.sh: %s\n' "$*" >&2; }

end_process() { # PID SECONDS: ask, wait, insist
    local pid=$1 seconds=$2
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((i = 0; i < seconds * 10; i++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP # a second signal must not leave half of it
    end_process "$command_pid" 60
    end_process "$ray_pid" 40
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

count_nodes() {
    python - <<'PYTHON' 2>/dev/null
import ray
ray.init(log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}

start_ray() { # OPTIONS: in the background, quiet; what it said is shown when it ends too early
    env -u RAY_ADDRESS ray start --block --disable-usage-stats "$@" >"$log" 2>&1 &
    ray_pid=$!
}

wait_for_nodes() {
    local deadline=$((SECONDS + WAIT_S)) seen=0
    until seen=$(count_nodes) && ((seen >= NUM_NODES)); do
        if ! kill -0 "$ray_pid" 2>/dev/null; then
            say "ray start ended: $(tail -n 5 "$log")"
            exit 1
        fi
        if ((SECONDS >= deadline)); then
            say "${seen:-0} of $NUM_NODES hosts joined within $WAIT_S s; see $log on the others"
            exit 1
        fi
        sleep 1
    done
}

if ((NODE_RANK == 0)); then
    start_ray --head --node-ip-address "$HEAD_ADDRESS" --port "$HEAD_PORT" --dashboard-host 127.0.0.1 --temp-dir "$RAY_TMP"
    wait_for_nodes
    say "$NUM_NODES hosts are there"
    tinyr1v "$@" &
    command_pid=$!
    status=0
    wait "$command_pid" || status=$?
    command_pid=
    exit "$status"
else
    deadline=$((SECONDS + WAIT_S))
    while :; do # until the head is up, joining fails
        start_ray --address "$RAY_ADDRESS"
        wait "$ray_pid" || true
        ray_pid=
        if grep -q 'Ray runtime started' "$log"; then exit 0; fi # it had joined, and the head has gone
        if ((SECONDS >= deadline)); then
            say "$RAY_ADDRESS did not let this host join within $WAIT_S s: $(tail -n 5 "$log")"
            exit 1
        fi
        sleep 2
    done
fi

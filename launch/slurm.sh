#!/usr/bin/env bash
# A run on the nodes of one Slurm job: Ray comes up across them, runs one tinyr1v command, and goes down on any exit.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh train --config FILE run.folder=/shared/runs
#
# Submit from the repository's root, with the environment active; both must be on storage that all nodes share.
# A new token protects each job's Ray. 120 s before the time limit the run is told to stop; continue it with --resume.
#SBATCH --job-name=tinyr1v
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:TERM@120
set -euo pipefail

: "${SLURM_JOB_ID:?this is for sbatch or salloc: sbatch launch/slurm.sh train ...}"
here=${SLURM_SUBMIT_DIR:-$PWD}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

export NUM_NODES=${#nodes[@]}
export HEAD_ADDRESS
HEAD_ADDRESS=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{ print $1 }')
export HEAD_PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node do not meet
export RAY_TMP=/tmp/ray-$SLURM_JOB_ID
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # reaches the nodes in the environment, on no command line

step=
# shellcheck disable=SC2317  # the traps call it
clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $step ]]; then
        kill -TERM "$step" 2>/dev/null || true # srun passes it on to every node
        wait "$step" || true
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# The first task to end, which is the head's, takes the step with it: the others get 30 s to leave.
# shellcheck disable=SC2016  # SLURM_PROCID is each task's own
srun --ntasks="$NUM_NODES" --ntasks-per-node=1 --wait=30 --kill-on-bad-exit=1 \
    bash -c 'NODE_RANK=$SLURM_PROCID exec bash "$0" "$@"' "$here/launch/multi_host.sh" "$@" &
step=$!
status=0
wait "$step" || status=$?
step=
exit "$status"

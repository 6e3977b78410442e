#!/usr/bin/env bash
# Submit a run to a Ray cluster that is up already: any cloud, KubeRay, Slurm or bare machines.
#
#   export RAY_API_SERVER_ADDRESS=http://HOST:8265   # of a cluster elsewhere, through kubectl port-forward or ssh -L
#   launch/ray_job.sh train --config configs/miniature_ocr_cpu.yaml run.folder=/shared/runs
#
# The working tree is packed and sent along. Ctrl-C leaves the job running. A cluster with token authentication, Ray's
# default, needs RAY_AUTH_MODE=token and the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${RAY_API_SERVER_ADDRESS:?set it to the address of Ray\'s dashboard, such as http://127.0.0.1:8265}"

exec tinyr1v submit --address "$RAY_API_SERVER_ADDRESS" "$@"

#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: check the run in one process, then launch all of them.
#   bash tools/dist_run.sh TOOL PROCESSES ARGUMENTS...
set -euo pipefail
tool=$1
processes=$2
if ! [[ "$processes" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: the number of GPUs must be a positive integer, not '$processes'" >&2
    exit 2
fi
# Machines meet there, and may come and go; a group that is started again needs it too, since its
# processes would else find the addresses of those before them.
endpoint=${RDZV_ENDPOINT:-}
if [ "${MAX_RESTARTS:-0}" != 0 ]; then
    endpoint=${endpoint:-${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}}
fi
if [ -n "$endpoint" ]; then
    meet=(--rdzv_backend=c10d --rdzv_endpoint="$endpoint" --rdzv_id="${RDZV_ID:-mmdense}")
elif [[ "${NNODES:-1}" =~ ^[1-9][0-9]*$ ]]; then
    meet=(
        --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}"
    )
else
    echo "error: NNODES=$NNODES needs RDZV_ENDPOINT, a HOST:PORT where the machines meet" >&2
    exit 2
fi
# Bad input ends here with one line instead of one per process.
MMDENSE_CHECKED=0 LOCAL_WORLD_SIZE=$processes python "$tool" "${@:3}" --dry-run
export MMDENSE_CHECKED=1
exec python "$(dirname "$0")/dist_launch.py" \
    --nnodes="${NNODES:-1}" \
    "${meet[@]}" \
    --max-restarts="${MAX_RESTARTS:-0}" \
    --shutdown-timeout="${SHUTDOWN_TIMEOUT:-120}" \
    --nproc_per_node="$processes" \
    "$tool" "${@:3}" --launcher pytorch

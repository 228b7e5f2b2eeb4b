#!/usr/bin/env bash
# Train with several processes: one per GPU, or on the CPU where no CUDA device exists.
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/dist_run.sh" "$(dirname "$0")/train.py" "$2" "$1" "${@:3}"

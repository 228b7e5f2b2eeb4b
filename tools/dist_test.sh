#!/usr/bin/env bash
# Test with several processes: one per GPU, or on the CPU where no CUDA device exists.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/dist_run.sh" "$(dirname "$0")/test.py" "$3" "$1" "$2" "${@:4}"

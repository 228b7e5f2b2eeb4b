#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share.
#   bash tools/slurm_run.sh PARTITION JOB_NAME TOOL ARGUMENTS...
set -euo pipefail
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$gpus_per_node" ]; then
    gpus_per_node=$gpus
fi
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun -p "$1" \
    --job-name="$2" \
    --gres=gpu:"$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$3" "${@:4}" --launcher slurm

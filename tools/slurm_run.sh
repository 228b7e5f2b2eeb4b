#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share.
#   bash tools/slurm_run.sh PARTITION JOB_NAME TOOL ARGUMENTS...
# With REQUEUE=1 it is a batch job, which gets SIGUSR1 in time (SIGNAL_SECONDS=120 before its limit),
# saves, and queues again.
set -euo pipefail
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$gpus_per_node" ]; then
    gpus_per_node=$gpus
fi
# shellcheck disable=SC2206  # SRUN_ARGS is a list of words
options=(
    -p "$1"
    --job-name="$2"
    --gres=gpu:"$gpus_per_node"
    --ntasks="$gpus"
    --ntasks-per-node="$gpus_per_node"
    --cpus-per-task="${CPUS_PER_TASK:-5}"
    --signal=USR1@"${SIGNAL_SECONDS:-120}"
    ${SRUN_ARGS:-}
)
command=(python -u "$3" "${@:4}" --launcher slurm)
if [ "${REQUEUE:-0}" = 1 ]; then
    srun="srun --cpus-per-task=${CPUS_PER_TASK:-5} --kill-on-bad-exit=1 ${command[*]@Q}"
    exec sbatch "${options[@]}" --requeue --open-mode=append \
        --wrap "$srun || { code=\$?; [ \$code = 138 ] && scontrol requeue \$SLURM_JOB_ID; exit \$code; }"
fi
exec srun "${options[@]}" --kill-on-bad-exit=1 "${command[@]}"

"""What the launchers say of a run's processes, before these are connected.

torchrun, mpirun and srun leave their word in the environment.
"""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this is the process that checks and speaks for all."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return int(next((os.environ[name] for name in names if name in os.environ), 0)) == 0


def is_first_machine() -> bool:
    """Whether no other machine may have begun with this run; that one would have its work dir."""
    return os.environ.get('NODE_RANK', '0') == '0' and 'RDZV_ENDPOINT' not in os.environ


def may_have_begun() -> bool:
    """Whether this may be one more start of a run: after a loss, or where machines come and go."""
    counts = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
    return 'RDZV_ENDPOINT' in os.environ or any(int(os.environ.get(name, 0)) for name in counts)


def count_processes() -> int:
    """Those of all machines; 1 without a launcher."""
    if 'LOCAL_WORLD_SIZE' in os.environ and 'WORLD_SIZE' not in os.environ:  # dist_run.sh's, before
        nodes = os.environ.get('NNODES', '1')
        return int(os.environ['LOCAL_WORLD_SIZE']) * (int(nodes) if nodes.isdecimal() else 1)
    names = ('WORLD_SIZE', 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
    return int(next((os.environ[name] for name in names if name in os.environ), 1))


def count_on_machine() -> int:
    """Those of this machine."""
    names = ('LOCAL_WORLD_SIZE', 'SLURM_NTASKS_PER_NODE', 'OMPI_COMM_WORLD_LOCAL_SIZE')
    return int(next((os.environ[name] for name in names if name in os.environ), 1))

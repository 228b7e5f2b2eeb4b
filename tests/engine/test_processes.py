"""What launchers leave in the environment: torchrun, mpirun, srun, and elastic starts."""

import pytest

from mmdense.engine import processes

NAMES = (
    'LOCAL_WORLD_SIZE',
    'NNODES',
    'OMPI_COMM_WORLD_LOCAL_SIZE',
    'OMPI_COMM_WORLD_SIZE',
    'SLURM_STEP_NUM_TASKS',
    'NODE_RANK',
    'OMPI_COMM_WORLD_RANK',
    'RANK',
    'RDZV_ENDPOINT',
    'SLURM_NTASKS_PER_NODE',
    'SLURM_PROCID',
    'SLURM_RESTART_COUNT',
    'TORCHELASTIC_RESTART_COUNT',
    'WORLD_SIZE',
)


@pytest.mark.parametrize(
    'function, environ, answer',
    [
        ('is_main_process', {}, True),
        ('is_main_process', {'RANK': '0'}, True),
        ('is_main_process', {'RANK': '1'}, False),
        ('is_main_process', {'SLURM_PROCID': '0'}, True),
        ('is_main_process', {'SLURM_PROCID': '2'}, False),
        ('is_main_process', {'OMPI_COMM_WORLD_RANK': '1'}, False),
        # torchrun below srun: its own rank counts
        ('is_main_process', {'RANK': '0', 'SLURM_PROCID': '3'}, True),
        ('is_main_process', {'RANK': '1', 'SLURM_PROCID': '0'}, False),
        ('is_first_machine', {}, True),
        ('is_first_machine', {'NODE_RANK': '0'}, True),
        ('is_first_machine', {'NODE_RANK': '1'}, False),
        ('is_first_machine', {'RDZV_ENDPOINT': 'host:1'}, False),
        ('is_first_machine', {'NODE_RANK': '0', 'RDZV_ENDPOINT': 'host:1'}, False),
        ('may_have_begun', {}, False),
        ('may_have_begun', {'TORCHELASTIC_RESTART_COUNT': '0'}, False),
        ('may_have_begun', {'TORCHELASTIC_RESTART_COUNT': '1'}, True),
        ('may_have_begun', {'SLURM_RESTART_COUNT': '2'}, True),
        ('may_have_begun', {'RDZV_ENDPOINT': 'a:1'}, True),
        ('count_processes', {}, 1),
        ('count_processes', {'LOCAL_WORLD_SIZE': '4'}, 4),
        ('count_processes', {'LOCAL_WORLD_SIZE': '4', 'NNODES': '2'}, 8),
        ('count_processes', {'LOCAL_WORLD_SIZE': '4', 'NNODES': '1:4'}, 4),  # may come and go
        ('count_processes', {'LOCAL_WORLD_SIZE': '4', 'NNODES': '2', 'WORLD_SIZE': '6'}, 6),
        ('count_processes', {'SLURM_STEP_NUM_TASKS': '16'}, 16),
        ('count_processes', {'OMPI_COMM_WORLD_SIZE': '8'}, 8),
        # dist_train.sh from a shell that srun has opened
        ('count_processes', {'LOCAL_WORLD_SIZE': '4', 'SLURM_STEP_NUM_TASKS': '1'}, 4),
        ('count_on_machine', {}, 1),
        ('count_on_machine', {'OMPI_COMM_WORLD_LOCAL_SIZE': '4'}, 4),
        ('count_on_machine', {'SLURM_NTASKS_PER_NODE': '8'}, 8),
        ('count_on_machine', {'SLURM_NTASKS_PER_NODE': '8', 'LOCAL_WORLD_SIZE': '2'}, 2),
    ],
)
def test_what_the_environment_says(function, environ, answer, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert getattr(processes, function)() == answer

"""From the command line to a run: the flags that tools share, the processes, how a tool ends."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from ..errors import UserError, last_line
from .checks import check_run
from .config import add_cfg_options, read_config

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that training and testing share, as the toolboxes spell them."""
    parser.add_argument('config', help='config file path')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='check config, data, checkpoint and work dir, say what is wrong, and stop',
    )
    parser.add_argument(
        '--no-data-check',
        action='store_true',
        help='do not look into the data sets for faults before the run',
    )
    # torchrun sets LOCAL_RANK; older launchers pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag that chooses a device, see :func:`mmdense.engine.building.pick_device`."""
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; by default a GPU if there is one')


def load_config(args: argparse.Namespace) -> Config:
    """The config of ``args`` with its overrides, launcher and work dir; raises as read_config."""
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.no_data_check:
        cfg.data_check = False
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def is_main_process() -> bool:
    """Whether this is the process that checks and speaks for all, before they are connected."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) == 0


def check_once(cfg: Config, loaders: tuple[str, ...], whole_model: bool) -> None:
    """Check the run in one of its processes, unless dist_run.sh did before it started them."""
    if is_main_process() and os.environ.get('MMDENSE_CHECKED') != '1':
        check_run(cfg, loaders, whole_model)


def run(main: Callable[[], None]) -> None:
    """Run a tool's main function; bad input ends it with one line and exit code 1.

    With ``MMDENSE_TRACEBACK=1`` in the environment it ends with the traceback, cause included.
    """
    try:
        main()
    except UserError as error:
        if os.environ.get('MMDENSE_TRACEBACK') == '1':
            raise
        sys.exit(f'error: {last_line(error)}')
    if torch.distributed.is_initialized():
        # Gloo's threads abort a process that exits while they run, and peers that still need it.
        # They end with the group, which the model's wrapper holds on to until it is collected.
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()

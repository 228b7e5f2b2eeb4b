"""From the command line to a run: the flags that tools share, the processes, how a tool ends."""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config

from ..errors import UserError, last_line
from .checks import check_run
from .config import add_cfg_options, read_config
from .interrupts import end_with_parent
from .processes import is_main_process

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
PATIENCE = 10.0  # seconds
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
DISK_ERRORS = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS)


def add_common_arguments(parser: argparse.ArgumentParser, config: str | None = None) -> None:
    """The flags that training and testing share, as the toolboxes spell them.

    Args:
        parser: What they are added to.
        config: '?' where something else may stand for a config file.
    """
    parser.add_argument('config', nargs=config, help='config file path')
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


def check_once(cfg: Config, loaders: tuple[str, ...], whole_model: bool) -> None:
    """Check the run in one of its processes, unless dist_run.sh did before it started them."""
    if is_main_process() and os.environ.get('MMDENSE_CHECKED') != '1':
        check_run(cfg, loaders, whole_model)


def run(main: Callable[[], None]) -> None:
    """Run a tool's main function; bad input ends it with one line and exit code 1.

    So does another process of the same run that is lost. With ``MMDENSE_TRACEBACK=1`` in the
    environment it ends with the traceback, cause included.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent(signal.SIGTERM)
    keep_memory()
    try:
        main()
    except SystemExit as error:
        try:
            disconnect()
        except RuntimeError:  # another rank left without a word
            os._exit(error.code if isinstance(error.code, int) else 1)
        raise
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (OSError, UserError, RuntimeError) as error:
        line = last_line(error) if isinstance(error, UserError) else explain_loss(error)
        if line is None or os.environ.get('MMDENSE_TRACEBACK') == '1':
            raise
        if 'lost the connection' in line and 'TORCHELASTIC_RUN_ID' in os.environ:
            time.sleep(PATIENCE)  # the launcher sees to the rank that is gone, and ends this one
        stop(f'error: {line}')
    disconnect()


def keep_memory() -> None:
    """Let the process keep the memory that it frees, where the C library is glibc.

    Each step asks for the same large tensors as the step before. By default their pages go back to
    the system in between, and are fetched and cleared anew.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL('libc.so.6').mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def disconnect() -> None:
    """Leave the other processes of a run, when all are ready to."""
    if torch.distributed.is_initialized():
        # Gloo's threads abort a process that exits while they run, and peers that still need it.
        # They end with the group, which the model's wrapper holds on to until it is collected.
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


def stop(line: str) -> None:
    """End with a line; among other processes without a word to those, which may be gone."""
    if torch.distributed.is_initialized():
        print(line, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # gloo's threads would abort a slower end
    sys.exit(line)


def explain_loss(error: OSError | RuntimeError) -> str | None:
    """A line on a disk, a data worker or a rank that is gone; None for any other error."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return (
            f"'{error.filename or 'a file'}' cannot be written: {error.strerror}; "
            "'--resume' continues a training"
        )
    worker = re.search(r'DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)', text)
    if worker:
        return (
            f'the data worker with process id {worker[1]} was lost, most likely for want of memory '
            "(fewer num_workers need less); '--resume' continues a training"
        )
    if re.search(r'Connection (closed|reset) by peer|Broken pipe|NCCL|gloo', text):
        rank = os.environ.get('RANK', '0')
        return f"rank {rank} lost the connection to another rank; '--resume' continues a training"
    return None

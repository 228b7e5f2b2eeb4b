"""From command line to runner, the same for the three toolboxes.

``load_config`` reads and completes the config, ``check_run`` (:mod:`mmdense.engine.checks`) looks
for what would fail, ``build_runner`` makes the environment fit the machine and builds mmengine's
runner.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from . import checkpoint
from .errors import UserError, last_line

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


class KeyValueAction(DictAction):
    """mmengine's key=value parser, whose complaints are argparse's."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        try:
            super().__call__(parser, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            parser.error(f'--cfg-options take key=value: {error}')


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
    # torchrun sets LOCAL_RANK; older launchers pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """The flag that overrides a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValueAction,
        help='settings that override the config, as key=value; a list is written key="[a,b]" or '
        'key=a,b, without white space',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag that chooses a device, see :func:`mmdense.engine.inference.pick_device`."""
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; by default a GPU if there is one')


def read_config(path: str, options: dict | None = None) -> Config:
    """A config file with overrides.

    Raises:
        UserError: When the file is missing or is not a config, or the overrides do not fit.
    """
    if '::' in path:
        raise UserError(
            f"config '{path}': names with :: are for _base_ in a config; name a file, for example "
            'one of configs/'
        )
    if not Path(path).is_file():
        raise UserError(f"config '{path}' does not exist; configs/ holds those of mmdense")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f"config '{path}' cannot be read: {last_line(error)}") from error
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f'--cfg-options do not fit this config: {last_line(error)}') from error
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """The config of ``args`` with its overrides, launcher and work dir; raises as read_config."""
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def enable_amp(cfg: Config) -> None:
    """Mixed precision: float16 with loss scaling on a GPU, bfloat16 on the CPU."""
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmdense.CPUAmpOptimWrapper'


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the total batch size."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str) -> None:
    """Continue from a checkpoint file, or for ``'auto'`` from the latest one in the work dir."""
    cfg.resume = True
    if resume != 'auto':
        cfg.load_from = resume
    elif Path(cfg.work_dir, 'last_checkpoint').is_file():
        cfg.load_from = find_latest_checkpoint(cfg.work_dir)
    else:
        cfg.load_from = None  # nothing yet: the run starts from the beginning
        return
    state = checkpoint.load_file(cfg.load_from)
    if not {'meta', 'optimizer', 'message_hub'} <= state.keys():
        raise UserError(
            f"--resume: '{cfg.load_from}' holds weights but no training state; start from it with "
            f'--cfg-options load_from={cfg.load_from}'
        )


def is_main_process() -> bool:
    """Whether this is the process that checks and speaks for all, before they are connected."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) == 0


def build_runner(cfg: Config) -> Runner:
    """The runner of a complete config, made fit for this machine."""
    CheckpointLoader.register_scheme(('', 'http://', 'https://'), _load_safely, force=True)
    name_unreadable_files()
    if not torch.cuda.is_available():
        use_cpu(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def train(cfg: Config) -> None:
    """Train; an empty training set, which mmengine trips over, is told in one line."""
    runner = build_runner(cfg)
    try:
        runner.train()
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise UserError(
            'no image of the training set is left: none has an annotation of the classes in '
            "metainfo; check ann_file, metainfo and the data set's filter_cfg"
        ) from error


def use_cpu(cfg: Config) -> None:
    """Without a CUDA device: plain batch norm, and gloo between processes.

    mmengine's own start-up selects a CUDA device, so the processes are connected here, before it.
    """
    replace_sync_bn(cfg.model)
    if cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs CUDA devices; tools/dist_train.sh also works without'
        )
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict(type='MMDistributedDataParallel'))
    cfg.model_wrapper_cfg.update(device_ids=None)
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')


def replace_sync_bn(node: object) -> None:
    """Turn every ``type='SyncBN'`` below a config node into ``'BN'``."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            replace_sync_bn(child)


def _load_safely(filename: str, map_location: object = None, **kwargs: object) -> dict:
    """mmengine's door for files and addresses, led to the safe reader."""
    state = checkpoint.load_file(filename)
    state.get('meta', {}).pop('config', None)  # mmengine would run this text when it resumes
    return state


def name_unreadable_files() -> None:
    """Let the loading transforms say which file they could not read."""
    for transform, key in ((LoadImageFromFile, 'img_path'), (LoadAnnotations, 'seg_map_path')):
        if not hasattr(transform.transform, 'names_file'):
            transform.transform = _naming_file(transform.transform, key)


def _naming_file(load: Callable, key: str) -> Callable:
    def transform(self: object, results: dict) -> dict | None:
        try:
            return load(self, results)
        except (OSError, AssertionError, AttributeError, cv2.error) as error:
            raise UserError(
                f"'{results.get(key)}' cannot be read as an image; mend or remove it"
            ) from error

    transform.names_file = True
    return transform


def run(main: Callable[[], None]) -> None:
    """Run a tool's main function; bad input ends it with one line and exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {last_line(error)}')
    if torch.distributed.is_initialized():
        # Gloo's threads abort a process that exits while they run, and peers that still need it.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

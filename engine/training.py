"""What training can be asked for on the command line, and training itself."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ..errors import UserError
from ..serialization.checkpoint import load_file
from .building import build_runner

# Added to every run, unless its config has one of that type with settings of its own.
HOOKS = [
    dict(type='mmdense.CheckInstancesHook'),
    dict(type='mmdense.FiniteHook'),
    dict(type='mmdense.MeanLossHook'),
]


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
    state = load_file(cfg.load_from, lazily=True)
    if not {'meta', 'optimizer', 'message_hub'} <= state.keys():
        raise UserError(
            f"--resume: '{cfg.load_from}' holds weights but no training state; start from it with "
            f'--cfg-options load_from={cfg.load_from}'
        )


def train(cfg: Config) -> None:
    """Train; an empty training set, which mmengine trips over, is told in one line."""
    own = cfg.get('custom_hooks') or []
    named = [hook.get('type') for hook in own if isinstance(hook, dict)]
    cfg.custom_hooks = [*own, *(hook for hook in HOOKS if hook['type'] not in named)]
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

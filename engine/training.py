"""What training can be asked for on the command line, and training itself."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.optim import DefaultOptimWrapperConstructor

from ..errors import UserError
from ..serialization.checkpoint import load_file
from .amp import warn_of_emulation
from .building import build_runner
from .interrupts import stop_listening
from .processes import is_main_process
from .progress import bars
from .saving import find_checkpoint, get_training_meta, lock_work_dir

# Added to every run, unless its config has one of that type with settings of its own.
HOOKS = [
    dict(type='mmdense.RegroupHook'),
    dict(type='mmdense.CheckInstancesHook'),
    dict(type='mmdense.FiniteHook'),
    dict(type='mmdense.MeanLossHook'),
    dict(type='mmdense.ResumeStateHook'),
    dict(type='mmdense.ProgressHook'),
    dict(type='mmdense.InterruptHook'),  # the last of all
]
NOTHING_YET = '--resume: there is no checkpoint yet, so training starts from the beginning'
LOOPS = ('EpochBasedTrainLoop', 'IterBasedTrainLoop')  # mmengine's, of which ours are subclasses


def enable_amp(cfg: Config) -> None:
    """Mixed precision: float16 with loss scaling on a GPU, bfloat16 on the CPU."""
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmdense.CPUAmpOptimWrapper'
        if is_main_process():
            warn_of_emulation('cpu')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the total batch size."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str) -> None:
    """Continue from a checkpoint file, or for ``'auto'`` from the newest whole one in the work dir.

    Raises:
        UserError: When it cannot be continued from, or of those in the work dir none is whole.
    """
    if resume == 'auto':
        path, passed = find_checkpoint(find_checkpoint_dir(cfg))
        if path is None and passed:
            raise UserError(f'--resume: no checkpoint is whole: {"; ".join(passed)}')
        if is_main_process():
            print(*passed, f"resuming from '{path}'" if path else NOTHING_YET, sep='\n', flush=True)
        cfg.resume = path is not None
        if path is None:
            return
        resume = str(path)
    cfg.resume = True
    cfg.load_from = resume
    if Path(resume).is_dir():  # DeepSpeed's, which reads it by itself
        return
    state = load_file(resume, lazily=True)
    try:
        meta = get_training_meta(state)
    except UserError as error:
        raise UserError(f"--resume: '{resume}': {error}") from error
    if meta is None:
        raise UserError(
            f"--resume: '{resume}' holds weights but no training state; start from it with "
            f'--cfg-options load_from={resume}'
        )
    seed = meta.get('seed')
    if isinstance(seed, int):  # mmengine reads it when the order of the data is settled
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)


def find_checkpoint_dir(cfg: Config) -> Path:
    """The folder that mmengine's hook writes to."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    if out_dir is None or out_dir == cfg.work_dir:
        return Path(cfg.work_dir)
    return Path(out_dir, Path(cfg.work_dir).name)


def save_our_way(cfg: Config) -> None:
    """Save through :class:`mmdense.CheckpointHook` where the config has mmengine's, or none."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('checkpoint', ConfigDict(interval=1))
    if hook is not None and hook.get('type') in (None, 'CheckpointHook', CheckpointHook):
        hook.type = 'mmdense.CheckpointHook'


def set_resumable(cfg: Config) -> None:
    """Let mmengine's loops be the package's, and add the hooks of every run."""
    loop = cfg.get('train_cfg') or {}
    if 'by_epoch' in loop and 'type' not in loop:
        loop.type = LOOPS[0] if loop.pop('by_epoch') else LOOPS[1]
    name = str(loop.get('type')).removeprefix('mmengine.')
    if name in LOOPS:
        loop.type = f'mmdense.{name}'
    own = cfg.get('custom_hooks') or []
    if (cfg.get('model_wrapper_cfg') or {}).get('type') == 'mmdense.FullyShardedModel':
        own = [*own, dict(type='mmdense.ShardedCheckpointHook')]
    named = [hook.get('type') for hook in own if isinstance(hook, dict)]
    cfg.custom_hooks = [*own, *(hook for hook in HOOKS if hook['type'] not in named)]
    for hook in cfg.custom_hooks:
        if isinstance(hook, dict) and 'EarlyStoppingHook' in str(hook.get('type')):
            hook.setdefault('priority', 'LOW')  # counts before a checkpoint keeps what it counted


def group_parameters(cfg: Config) -> None:
    """Let the optimizer have one group for each setting, where mmengine makes one a parameter."""
    wrapper = cfg.get('optim_wrapper') or {}
    if 'runner_type' in cfg or not wrapper.get('paramwise_cfg'):
        return  # other runners keep states of the optimizer in ways of their own
    default = DefaultOptimWrapperConstructor
    if wrapper.get('constructor') in (None, default, default.__name__):
        wrapper.constructor = 'mmdense.GroupedOptimWrapperConstructor'


def train(cfg: Config) -> None:
    """Train; an empty training set, which mmengine trips over, is told in one line."""
    set_resumable(cfg)
    save_our_way(cfg)
    group_parameters(cfg)
    try:
        with bars, lock_work_dir(cfg.work_dir) if is_main_process() else nullcontext():
            build_runner(cfg).train()
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise UserError(
            'no image of the training set is left: none has an annotation of the classes in '
            "metainfo; check ann_file, metainfo and the data set's filter_cfg"
        ) from error
    finally:
        stop_listening()

"""A config's training in float64, for tests that state it in plain PyTorch beside."""

import copy

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmdense.engine import building, training

STEPS = 20


@HOOKS.register_module()
class Observer(Hook):
    """Keeps losses and learning rates."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.losses, self.rates = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append([g['lr'] for g in runner.optim_wrapper.param_groups])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())


def run_steps(
    cfg: Config, folder: str, dataset: dict, *hooks: dict
) -> tuple[nn.Module, Runner, Observer]:
    """Train on batches of a data set, one an epoch, without evaluation: the model untrained, the
    runner afterwards, what was observed."""
    cfg.train_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=STEPS)
    for split in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{split}_{part}'] = None
    cfg.custom_hooks = [dict(type='Observer'), *hooks]
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1, save_last=False)
    cfg.work_dir, cfg.launcher, cfg.log_level = folder, 'none', 'WARNING'
    training.set_resumable(cfg)
    runner = building.build_runner(cfg)
    runner.model.init_weights()
    runner.model.double()  # last: deformable attention makes its own of float32
    untrained = copy.deepcopy(runner.model)
    runner._init_model_weights = lambda: None
    runner.train()
    observer = next(hook for hook in runner.hooks if isinstance(hook, Observer))
    return untrained, runner, observer

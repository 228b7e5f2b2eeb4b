"""A training of milliseconds, to be stopped, killed and resumed; also in processes of its own."""

import os
import sys
import time
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before any mm* import)

import torch  # isort: skip
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmdense.engine import launch, processes, training


@MODELS.register_module()
class ToyModel(BaseModel):
    """Four weights, and as much ballast as is wanted."""

    def __init__(self, ballast: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer('ballast', torch.zeros(ballast))

    def forward(self, inputs: list[Tensor], mode: str = 'tensor') -> dict | list:
        out = self.layer(torch.stack(inputs))
        return dict(loss=out.square().mean()) if mode == 'loss' else list(out)


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Sixteen samples, each of which takes some seconds to make."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        time.sleep(self.seconds)
        return dict(inputs=torch.full((4,), index / 16))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Two metrics, of which one rises and one falls."""

    calls = 0

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list) -> dict[str, float]:
        ToyMetric.calls += 1
        return dict(acc=float(ToyMetric.calls), loss=-float(ToyMetric.calls))


@HOOKS.register_module()
class ActHook(Hook):
    """Does something when an iteration has ended, before any checkpoint.

    Args:
        at: Of this iteration, counted from 1.
        code: Python, which sees ``runner``, ``os`` and ``time``.
    """

    def __init__(self, at: int, code: str, where: str = 'after_train_iter') -> None:
        self.at, self.code, self.where = at, code, where

    def act(self, runner: object, where: str, number: int) -> None:
        if where == self.where and number == self.at:
            exec(self.code, dict(runner=runner, os=os, time=time, sys=sys))

    def after_train_iter(self, runner: object, batch_idx: int, **kwargs: object) -> None:
        self.act(runner, 'after_train_iter', runner.iter + 1)

    def after_val_iter(self, runner: object, batch_idx: int, **kwargs: object) -> None:
        self.act(runner, 'after_val_iter', batch_idx + 1)


def make_config(work_dir: str | Path, **settings: object) -> Config:
    """Three epochs of eight iterations, or with ``max_iters`` as many of those.

    Args:
        work_dir: The work dir.
        settings: Of the checkpoint hook; ``max_iters``, ``workers``, ``seconds`` per sample,
            ``ballast`` and ``hooks`` are the training's.
    """
    max_iters = settings.pop('max_iters', None)
    workers = settings.pop('workers', 0)
    loader = dict(
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='ToyDataset', seconds=settings.pop('seconds', 0)),
    )
    cfg = dict(
        default_scope='mmengine',
        model=dict(type='ToyModel', ballast=settings.pop('ballast', 0)),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=settings.pop('max_epochs', 3)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='ExponentialLR', gamma=0.9, by_epoch=max_iters is None),
        custom_hooks=[dict(type='ActHook', **hook) for hook in settings.pop('hooks', ())],
        work_dir=str(work_dir),
        launcher='pytorch' if 'RANK' in os.environ else 'none',
        env_cfg={},
        experiment_name=f'{Path(work_dir).name}_{time.time_ns()}',
    )
    if max_iters is not None:
        cfg['train_cfg'] = dict(by_epoch=False, max_iters=max_iters, val_interval=2)
        loader['sampler'] = dict(type='InfiniteSampler', shuffle=False)
        settings.setdefault('interval', 2)
        settings['by_epoch'] = False
    if 'save_best' in settings or settings.pop('evaluate', False):
        cfg['val_dataloader'] = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
        cfg['val_evaluator'] = dict(type='ToyMetric')
        cfg['val_cfg'] = dict()
    cfg['default_hooks'] = dict(
        checkpoint=dict(dict(type='CheckpointHook', interval=1), **settings)
    )
    return Config(cfg)


def train(work_dir: str | Path, resume: str | None = None, **settings: object) -> None:
    cfg = make_config(work_dir, **settings)
    if resume:
        training.set_resume(cfg, resume)
    training.train(cfg)


def start(path: str) -> None:
    """As a process of a launcher: the training whose settings a file has, or what is left of it."""
    settings = Config.fromfile(path).to_dict()
    resume = 'auto' if processes.may_have_begun() else None
    launch.run(lambda: train(resume=resume, **settings))

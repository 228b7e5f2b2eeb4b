"""A training of milliseconds in which everything that can draws at random, cut and resumed."""

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.utils import ManagerMixin
from torch import nn

import mmdense  # noqa: F401
from mmdense.engine import building, training


class Noise:
    """Draws from all three generators, and drops a sample now and then."""

    def __call__(self, results):
        if random.random() < 0.1:
            return None  # the data set then draws another one
        noise = np.random.rand(4) + random.random() + torch.rand(1).item()
        x = torch.tensor(noise + results['sample_idx'] / 10, dtype=torch.float32)
        return dict(inputs=x, label=torch.tensor(results['sample_idx'] % 2.0), log=results)


class Samples(BaseDataset):
    """``size`` numbers, half of them wide pictures and half high ones."""

    METAINFO = dict(classes=('even', 'odd'))
    loaded = 0

    def __init__(self, size=17, **kwargs):
        self.size = size
        super().__init__(pipeline=[Noise()], serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(width=1 + i % 3, height=2) for i in range(self.size)]

    def get_cat_ids(self, idx):
        return [idx % 2]

    def prepare_data(self, idx):
        Samples.loaded += 1
        return super().prepare_data(idx)


class Mixup(BaseDataPreprocessor):
    def __init__(self):
        super().__init__()
        self.seen = []  # batches to train on, before they are mixed

    def forward(self, data, training=False):
        x, y = torch.stack(data['inputs']), torch.stack(data['label'])
        if training:
            self.seen.append(x)
            share, order = np.random.beta(1, 1), torch.randperm(len(x))
            x, y = share * x + (1 - share) * x[order], share * y + (1 - share) * y[order]
        return dict(inputs=x, label=y)


class Net(BaseModel):
    def __init__(self):
        super().__init__(data_preprocessor=Mixup())
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1)
        )

    def forward(self, inputs, label, mode='tensor'):
        if mode == 'loss':
            return dict(loss=(self.layers(inputs).squeeze(1) - label).square().mean())
        return list(self.layers(inputs).squeeze(1) - label)


class Error(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        torch.rand(3)  # an evaluation that draws
        return dict(error=float(np.abs(results).mean()))


class CutError(Exception):
    pass


class Cut(Hook):
    """Writes ``cut.pth`` at the end of an iteration, or in one, and ends the process's run."""

    priority = 'VERY_LOW'

    def __init__(self, at, stage='after_train_iter'):
        self.at = at
        self.stage = stage

    def after_train_iter(self, runner, *args, **kwargs):
        if self.stage == 'after_train_iter' and runner.iter + 1 == self.at:
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(runner.work_dir, 'cut.pth', meta=meta, by_epoch=False)
            raise CutError

    def after_train_epoch(self, runner):
        if self.stage == 'after_train_epoch' and runner.iter == self.at:
            runner.save_checkpoint(runner.work_dir, 'cut.pth')
            raise CutError

    def after_val_epoch(self, runner, metrics=None):
        if self.stage == 'after_val_epoch' and runner.iter == self.at:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            runner.save_checkpoint(runner.work_dir, 'cut.pth', meta=meta)
            raise CutError


def make_config(folder, by_epoch=True, workers=0, size=17, **overrides):
    """Four epochs of six iterations, or 24 iterations; the keys are those of a config."""
    loop = (
        dict(by_epoch=True, max_epochs=4, val_interval=2)
        if by_epoch
        else dict(by_epoch=False, max_iters=24, val_interval=5)
    )
    evaluated = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type=Samples, test_mode=False),
    )
    cfg = dict(
        default_scope='mmengine',
        launcher='none',
        model=dict(type=Net),
        work_dir=str(folder),
        experiment_name=Path(folder).name,
        train_dataloader=dict(
            batch_size=3,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
            dataset=dict(type=Samples, size=size),
        ),
        val_dataloader=evaluated,
        val_evaluator=dict(type=Error),
        val_cfg=dict(),
        train_cfg=loop,
        optim_wrapper=dict(
            type='OptimWrapper',
            accumulative_counts=4,
            optimizer=dict(type='AdamW', lr=0.1),
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
            dict(type='CosineAnnealingLR', by_epoch=by_epoch, end=4 if by_epoch else 24)
            | (dict(convert_to_iter_based=True) if by_epoch else {}),
            dict(type='MultiStepLR', milestones=[3], by_epoch=True),
        ],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=-1, save_last=False),
            logger=dict(type='LoggerHook', interval=1),
        ),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
        env_cfg=dict(dist_cfg=dict(backend='gloo'), mp_cfg=dict(mp_start_method='fork')),
        log_level='WARNING',
        randomness=dict(seed=3),
    )
    cfg = Config(cfg)
    cfg.merge_from_dict(overrides)
    return cfg


def run(cfg, cut=None, resume=None):
    """Train to the end or to the cut; what there is of the run then."""
    for manager in (ManagerMixin, *ManagerMixin.__subclasses__()):
        for kind in (manager, *manager.__subclasses__()):
            getattr(kind, '_instance_dict', {}).clear()
    cfg = Config(cfg.to_dict())
    random.seed(), np.random.seed(), torch.seed()  # another process
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    training.set_resumable(cfg)
    if cut is not None:
        cfg.custom_hooks.insert(0, dict(type=Cut, **cut))
    runner = building.build_runner(cfg)
    with suppress(CutError):
        runner.train()
    runner.train_dataloader._iterator = runner.train_loop.dataloader_iterator = None  # ends workers
    return runner


def outcome(runner):
    """All that must be equal: weights, averages, optimizer, losses, rates and metrics."""
    from mmengine.hooks import EMAHook

    model = getattr(runner.model, 'module', runner.model)
    found = {f'model {k}': v for k, v in model.state_dict().items()}
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            found |= {f'ema {k}': v for k, v in hook.ema_model.state_dict().items()}
    for number, state in runner.optim_wrapper.state_dict()['state'].items():
        found |= {f'optimizer {number} {k}': v for k, v in state.items()}
    for name, history in runner.message_hub.log_scalars.items():
        if not name.endswith('time'):
            found[name] = torch.tensor(history.data[0])
    found['rng'] = torch.get_rng_state()
    found['numpy'] = torch.tensor(np.random.randint(1 << 30, size=3))
    found['python'] = torch.tensor(random.random())
    return found


def check_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(torch.as_tensor(found[key]), torch.as_tensor(value)), key


def resume_and_compare(rank, folder, cut):
    """Whole, cut and resumed, in each of several processes."""
    whole = run(make_config(folder / 'whole', launcher='pytorch'))
    wanted = outcome(whole)
    seen = whole.model.module.data_preprocessor.seen
    torch.save(seen, folder / f'seen_{rank}.pth')
    cfg = make_config(folder / 'cut', launcher='pytorch')
    run(cfg, cut=cut)
    check_equal(outcome(run(cfg, resume=folder / 'cut' / 'cut.pth')), wanted)

"""What a training on a folder is to be: batch, rates, epochs, averages; and its config's text."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config

from ..engine.processes import count_processes
from ..engine.toolboxes import find_toolbox
from ..errors import UserError
from ..serialization.checkpoint import find_file
from ..serialization.published import SCHEME, read_table
from .code import Name, write_assignment, write_comment, write_docstring
from .datasets import FORMS, make_dataset, set_classes
from .examining import Examination
from .folder import CLASSES, SEMANTIC
from .models import has_masks, read_model
from .summary import describe

PASSES = 20000  # of pictures in a training; as many epochs as that takes,
EPOCHS = (12, 100)  # within these bounds
STEPS = 10  # in an epoch at least: a step takes no larger share of the pictures
WORKERS = 4  # that load pictures for each GPU
SHARE = 0.1  # of the training, over which weights are averaged
MOMENTA = (2e-4, 0.2)  # of the average
WARM_UP = 100  # iterations at most
WRITTEN = 'Written by tools/train.py --data, which writes it anew: copy it before you change it.'


@dataclass(frozen=True)
class Recipe:
    """What was decided.

    Args:
        batch: Pictures at a time, in each process.
        processes: How many of those there are.
        counts: Batches that a step of the optimizer gathers.
        epochs: Passes over the pictures.
        lr: The learning rate.
        why: Of all this, a line each.
        iterations: Batches of an epoch.
    """

    batch: int
    processes: int
    counts: int
    epochs: int
    lr: float
    why: tuple[str, ...]
    iterations: int


class Start(NamedTuple):
    """The file that a model starts from, or why it starts from scratch if it need not."""

    file: str | None
    reason: str | None

    def describe(self) -> str:
        fallback = self.reason or 'it starts from scratch'
        return f"it starts from '{self.file}'" if self.file else fallback


def find_most(cfg: Config, pictures: int) -> int:
    """Pictures of a step: the recipe's, or of a small set a power of two within its share."""
    share = max(pictures // STEPS, 1)
    return min(cfg.auto_scale_lr.base_batch_size, 2 ** int(math.log2(share)))


def decide(cfg: Config, pictures: int, batch: int, epochs: int | None) -> Recipe:
    """Weigh a model's recipe against the data and the memory.

    Args:
        cfg: The model's config.
        pictures: To train on.
        batch: Pictures that fit at a time.
        epochs: As many as are asked for.
    """
    processes = count_processes()
    most, base = find_most(cfg, pictures), cfg.auto_scale_lr.base_batch_size
    counts = max(most // (batch * processes), 1)
    total = batch * processes * counts
    lr = cfg.optim_wrapper.optimizer.lr * total / base
    low, high = EPOCHS
    fitting = min(max(math.ceil(PASSES / pictures), low), high)
    iterations = max(pictures // (batch * processes), 1)
    each = f'{batch} at a time' + f' on each of {processes} processes' * (processes > 1)
    why = (
        f'a step sees {total} pictures, {each}; the recipe has {base}, data of this size {most}',
        f'the rate is {lr:g}: {cfg.optim_wrapper.optimizer.lr:g} * {total} / {base}',
        f'{epochs or fitting} epochs'
        + ('' if epochs else f': {PASSES} pictures are seen, within {low} to {high} epochs'),
    )
    return Recipe(batch, processes, counts, epochs or fitting, lr, why, iterations)


def get_momentum(recipe: Recipe) -> float:
    """Of an average over the last tenth of the training."""
    wanted = 1 / max(SHARE * recipe.epochs * recipe.iterations, 1)
    return float(f'{min(max(wanted, MOMENTA[0]), MOMENTA[1]):.2g}')


def write_recipe(
    examination: Examination,
    base: Path,
    data: dict[str, dict],
    recipe: Recipe,
    start: Start,
    work_dir: str,
) -> str:
    """The text of a config.

    Args:
        examination: The data.
        base: The config of the model.
        data: Where each split's data are, from :func:`mmdense.intake.converting.convert`.
        recipe: What was decided.
        start: What the model starts from.
        work_dir: Where logs and checkpoints go.
    """
    folder, cfg = examination.folder, read_model(base)
    root = os.path.join(os.path.abspath(folder.root), '')
    parts = [
        f'_base_ = {f"mmdense::{base.parent.name}/{base.name}"!r}',
        write_assignment('work_dir', work_dir),
        write_assignment('classes', tuple(folder.classes)),
        write_assignment('data_root', root),
    ]
    if folder.task == SEMANTIC:
        palette = folder.palette or make_palette(len(folder.classes))
        parts.append(write_assignment('palette', palette))
    parts += ['', *write_model(cfg, start, len(folder.classes))]
    parts += ['', *write_loaders(cfg, folder.task, root, data, recipe)]
    parts += ['', *write_schedule(cfg, recipe)]
    docstring = write_docstring(f'{describe(examination)}.', f'python tools/train.py {work_dir}.py')
    notes = map(write_comment, [WRITTEN, *folder.notes])
    return '\n'.join([docstring, '', *notes, *parts, ''])


def make_palette(number: int) -> list[list[int]]:
    """Colours that differ, for masks that have none."""
    return [[37 * i % 256, 91 * i % 256, 173 * i % 256] for i in range(number)]


def write_model(cfg: Config, start: Start, number: int) -> list[str]:
    """The classes of the model, and what it starts from."""
    model = set_classes(cfg.model, number) or {}
    lines = []
    if start.reason:
        lines.append(write_comment(start.reason))
    if start.file and not names_start(cfg):
        lines.append(write_assignment('load_from', start.file))
    if start.reason and names_start(cfg):
        model['backbone'] = dict(model.get('backbone') or {}, init_cfg=None)
    lines.append(write_assignment('model', model))
    preprocessor = cfg.get('data_preprocessor') or {}
    if 'num_classes' in preprocessor:
        lines.append(write_assignment('data_preprocessor', dict(num_classes=number)))
    return lines


def names_start(cfg: Config) -> str | None:
    """The pretrained file that a config names for its backbone."""
    return (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint')


def find_start(base: Path) -> Start:
    """What the model of a config starts from, downloaded if need be: its backbone's file, or of a
    published classifier its own.
    """
    file = names_start(read_model(base))
    if file is None and base.stem in read_table():
        file = f'{SCHEME}{base.stem}'
    if file is None:
        return Start(None, None)
    try:
        find_file(file)
    except UserError as error:
        return Start(None, f'it starts from scratch: {error}')
    return Start(file, None)


def write_loaders(
    cfg: Config, task: str, root: str, data: dict[str, dict], recipe: Recipe
) -> list[str]:
    """Data loaders and evaluators."""
    workers = WORKERS if torch.cuda.is_available() else 0
    common = dict(num_workers=workers, persistent_workers=workers > 0)
    lines = [write_comment(recipe.why[0])]
    for split in ('train', 'val', 'test'):
        loader = f'{split}_dataloader'
        if split == 'test' and 'test' not in data:
            lines += ['test_dataloader = val_dataloader', 'test_evaluator = val_evaluator']
            continue
        shuffle = split == 'train'
        is_alone = task == SEMANTIC and not shuffle  # the toolbox stacks no pictures of two sizes
        settings = dict(batch_size=1 if is_alone else recipe.batch)
        settings |= common
        if shuffle:
            settings['drop_last'] = True
        settings['sampler'] = dict(_delete_=True, type='DefaultSampler', shuffle=shuffle)
        settings['dataset'] = make_dataset(cfg[loader].dataset, task, root, data[split], shuffle)
        lines.append(write_assignment(loader, settings))
        if not shuffle:
            evaluator = FORMS[task].evaluate(data[split], task != CLASSES and has_masks(cfg))
            lines.append(write_assignment(f'{split}_evaluator', evaluator))
    return lines


def write_schedule(cfg: Config, recipe: Recipe) -> list[str]:
    """Rates, epochs, checkpoints, averages and logs."""
    metric = next(iter(find_toolbox(cfg).keys))
    epochs, total = recipe.epochs, recipe.epochs * recipe.iterations
    end = min(WARM_UP, max(total // 10, 2))  # of 1 it would never end
    hooks = dict(
        timer=dict(type='IterTimerHook'),
        logger=dict(type='LoggerHook', interval=max(min(recipe.iterations // 2, 50), 1)),
        param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(
            _delete_=True,
            type='CheckpointHook',
            interval=1,
            max_keep_ckpts=1,
            save_best=metric,
            rule='greater',
        ),
        sampler_seed=dict(type='DistSamplerSeedHook'),
    )
    if 'checkpoint' not in (cfg.get('default_hooks') or {}):
        hooks['checkpoint'].pop('_delete_')
    cosine = dict(type='CosineAnnealingLR', eta_min=recipe.lr / 100, end=epochs, by_epoch=True)
    schedule = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=end),
        dict(cosine, convert_to_iter_based=True),
    ]
    patience = max(epochs // 2, 10)
    momentum = get_momentum(recipe)
    averages = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=momentum)
    stopping = dict(type='EarlyStoppingHook', monitor=metric, rule='greater', patience=patience)
    optimizer = dict(optimizer=dict(lr=recipe.lr), accumulative_counts=recipe.counts)
    loop = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
    lines = [
        write_comment(recipe.why[1]),
        write_assignment('optim_wrapper', optimizer),
        write_assignment('auto_scale_lr', dict(base_batch_size=recipe.batch * recipe.processes)),
        write_comment(recipe.why[2]),
        write_assignment('train_cfg', loop),
        write_assignment('param_scheduler', schedule),
        write_comment('the last checkpoint and the best one are kept'),
        write_assignment('default_hooks', hooks),
        write_comment(
            'weights are averaged over about a tenth of the training, and the average is evaluated '
            f'and saved; {patience} epochs without a better one end the training'
        ),
        write_assignment('custom_hooks', [averages, stopping]),
        write_assignment('log_processor', dict(by_epoch=True)),
    ]
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    lines.append(write_assignment('vis_backends', backends))
    lines.append(write_assignment('visualizer', dict(vis_backends=Name('vis_backends'))))
    return lines

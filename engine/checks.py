"""What must hold before a run starts.

Each check raises :class:`UserError` or returns nothing, and writes nothing but warnings to stderr.
Models are built without numbers, and checkpoints are asked for names and shapes only: the run
itself needs both.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from ..backbones.base import BaseBackbone
from ..errors import UserError
from ..serialization.checkpoint import get_state_dict, load_file
from ..serialization.loading import check_fit, select_pretrained
from .building import outline_maps, outline_model
from .config_words import check_words, find_late_schedules
from .data import find_datasets, prepare_loading
from .data_checks import examine_contents
from .processes import count_on_machine, count_processes, is_first_machine
from .saving import check_lock

DATA_HELP = "see 'Data sets' in README.md"


def check_run(cfg: Config, loaders: tuple[str, ...], whole_model: bool) -> None:
    """Everything below, for a config that the tools have completed.

    Args:
        cfg: The config, with ``work_dir``, ``load_from`` and ``launcher`` set.
        loaders: The dataloaders that the run needs, e.g. ``('train_dataloader',)``.
        whole_model: ``load_from`` must hold every tensor of the model, not its backbone alone.
    """
    check_processes()
    prepare_loading(cfg)
    check_words(cfg)
    check_data(cfg, loaders)
    check_model(cfg, 'train_dataloader' in loaders, whole_model)
    check_work_dir(cfg.work_dir)
    if 'train_dataloader' in loaders and is_first_machine():
        check_lock(cfg.work_dir)
    pictures = examine_contents(cfg, loaders) if cfg.get('data_check', True) else {}
    if 'train_dataloader' in loaders:
        warn_of_schedule(cfg, pictures.get('train_dataloader'))


def check_processes() -> None:
    """No more processes on this node than GPUs; without any GPU, the processes share the CPU."""
    processes, gpus = count_on_machine(), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f'{processes} processes were asked for on a machine with {gpus} GPU(s)')


def warn_of_schedule(cfg: Config, pictures: int | None) -> None:
    """Say what of the schedule lies behind the end of the training; ``pictures`` may be unknown."""
    batch = cfg.train_dataloader.get('batch_size') or math.inf
    known = pictures is not None and math.isfinite(batch)
    iters = math.ceil(pictures / (batch * count_processes())) if known else math.inf
    for line in find_late_schedules(cfg, iters):
        print(f'warning: {line}', file=sys.stderr)


def check_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Every local file and folder that the data sets of ``loaders`` name exists."""
    for loader in loaders:
        if cfg.get(loader) is None:
            continue
        for dataset in find_datasets(cfg[loader].dataset):
            root = dataset.get('data_root') or ''
            prefixes = dataset.get('data_prefix') or {}
            prefixes = prefixes.values() if isinstance(prefixes, dict) else [prefixes]
            folders = [root, *(os.path.join(root, prefix or '') for prefix in prefixes)]
            if dataset.get('type') == 'ImageNet' and dataset.get('split'):
                folders.append(os.path.join(root, dataset.split))
            for folder in folders:
                if is_local(folder) and not Path(folder).is_dir():
                    raise UserError(f"{loader}: folder '{folder}' does not exist; {DATA_HELP}")
            ann_file = dataset.get('ann_file') or ''
            files = [os.path.join(root, ann_file)] if ann_file else []
            evaluators = cfg.get(loader.replace('dataloader', 'evaluator')) or []
            for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
                files.append(evaluator.get('ann_file') or '')
            for path in files:
                if is_local(path) and not Path(path).is_file():
                    raise UserError(f"{loader}: file '{path}' does not exist; {DATA_HELP}")


def is_local(path: str) -> bool:
    return bool(path) and '://' not in path


def check_model(cfg: Config, pretrained: bool, whole_model: bool) -> None:
    """The model builds, its parts fit each other, and so do the files that it starts from.

    Args:
        cfg: The config.
        pretrained: Whether the files that ``init_cfg`` names are needed.
        whole_model: As in :func:`check_run`.
    """
    if 'model' not in cfg:
        raise UserError('the config has no model; it may be a part that others inherit from')
    model = outline_model(cfg)
    check_channels(cfg, model)
    if pretrained:
        check_pretrained(model)
    if cfg.get('load_from'):
        state = get_state_dict(load_file(cfg.load_from, lazily=True))
        check_fit(model, state, cfg.load_from, whole_model)


def check_channels(cfg: Config, model: nn.Module) -> None:
    """Neck and heads of a config take as many channels as its model's backbone gives."""
    try:
        given = [feature.shape[1] for feature in outline_maps(model, cfg, 64)]
    except Exception:  # whatever a backbone of others cannot do without numbers: no verdict
        return
    for name, wanted, indices in find_consumers(cfg.model, len(given)):
        if any(not -len(given) <= i < len(given) for i in indices):
            raise UserError(f'{name} uses maps {indices} of a backbone that gives {len(given)}')
        if wanted != [given[i] for i in indices]:
            raise UserError(
                f'{name} takes {wanted} channels, but the backbone gives '
                f'{[given[i] for i in indices]}: mend its in_channels'
            )


def find_consumers(model: dict, num_maps: int) -> Iterator[tuple[str, list[int], list[int]]]:
    """What reads the backbone's maps: its name, the channels it takes, and of which maps."""
    necks = model.get('neck') or []
    for neck in necks if isinstance(necks, list) else [necks]:
        channels = neck.get('in_channels') or neck.get('embed_dim')
        if channels:
            every = list(range(num_maps))
            yield (
                'neck',
                list(channels) if not isinstance(channels, int) else [channels] * num_maps,
                every,
            )
            return
    for name in ('head', 'decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            channels = head.get('in_channels')
            if isinstance(channels, int):
                yield name, [channels], [head.get('in_index', -1)]
            elif channels:
                yield name, list(channels), list(head.get('in_index', range(len(channels))))


def check_pretrained(model: nn.Module) -> None:
    """The files that backbones start from are there, and fit those that load strictly."""
    for module in model.modules():
        if isinstance(module, BaseBackbone):
            module.check_sources()
            for entry in module.pretrained_cfgs:
                state = get_state_dict(load_file(entry['checkpoint'], lazily=True))
                select_pretrained(module, state, entry['checkpoint'], entry.get('prefix'))


def check_work_dir(work_dir: str, flag: str = '--work-dir') -> None:
    """The folder that an argument names can be written, or made."""
    folder = Path(work_dir).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} '{work_dir}' is a file; choose another")
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{flag} '{work_dir}' cannot be written: {error.strerror} in '{folder}'"
        ) from error

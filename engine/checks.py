"""What must hold before a run starts; each check raises :class:`UserError` and writes nothing."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .checkpoint import (
    describe_mismatch,
    find_exempt,
    find_mismatch,
    get_state_dict,
    load_file,
    select_pretrained,
)
from .errors import UserError

DATA_HELP = "see 'Data sets' in README.md"


def check_run(cfg: Config, loaders: tuple[str, ...], whole_model: bool) -> None:
    """Everything below, for a config that the tools have completed.

    Args:
        cfg: The config, with ``work_dir``, ``load_from`` and ``launcher`` set.
        loaders: The dataloaders that the run needs, e.g. ``('train_dataloader',)``.
        whole_model: ``load_from`` must hold every tensor of the model, not its backbone alone.
    """
    check_processes()
    check_data(cfg, loaders)
    model = check_model(cfg)
    check_channels(cfg)
    if 'train_dataloader' in loaders:
        check_pretrained(model)
    if cfg.get('load_from'):
        check_checkpoint(model, cfg.load_from, whole_model)
    check_work_dir(cfg.work_dir)


def check_processes() -> None:
    """No more processes on this node than GPUs; without any GPU, the processes share the CPU."""
    per_node = os.environ.get('SLURM_NTASKS_PER_NODE', 1)
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', per_node))
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f'{processes} processes were asked for on a machine with {gpus} GPU(s)')


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


def find_datasets(dataset: dict) -> Iterator[dict]:
    """The data sets proper, below wrappers that repeat, concatenate or mix them."""
    inner = dataset.get('datasets') or ([dataset.dataset] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for child in inner:
        yield from find_datasets(child)


def is_local(path: str) -> bool:
    return bool(path) and '://' not in path


def check_model(cfg: Config) -> nn.Module:
    """The model builds. What a constructor refuses is a matter of the config, told in one line."""
    if 'model' not in cfg:
        raise UserError('the config has no model; it may be a part that others inherit from')
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            return MODELS.build(cfg.model)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        message = ' '.join(str(error.args[0]).split()) if error.args else ''
        if not message:  # a bare assertion says at least where it stands
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = f'{frame.line} ({frame.filename}:{frame.lineno})'
        raise UserError(f'the model of this config cannot be built: {message}') from error


def check_channels(cfg: Config) -> None:
    """Neck and heads of a config take as many channels as its backbone gives."""
    model = cfg.model
    backbone = {k: v for k, v in model.get('backbone', {}).items() if k != 'init_cfg'}
    try:
        scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine'))
        with scope, torch.device('meta'):
            maps = MODELS.build(backbone)(torch.empty(1, backbone.get('in_channels', 3), 64, 64))
        given = [feature.shape[1] for feature in maps]
    except Exception:  # whatever a backbone of others cannot do without numbers: no verdict
        return
    for name, wanted, indices in find_consumers(model, len(given)):
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
    """The files that ``init_cfg`` names are there and fit the backbones that load strictly."""
    for module in model.modules():
        pretrained = getattr(module, 'pretrained', None)
        if isinstance(pretrained, dict):
            select_pretrained(module, **pretrained)


def check_checkpoint(model: nn.Module, path: str, whole_model: bool) -> dict:
    """The file holds this model's tensors, or at least those of its backbone.

    Heads may differ when a run starts from another one's weights, since classes do.

    Returns:
        What the file holds.
    """
    own = {key.removeprefix('module.'): value for key, value in model.state_dict().items()}
    if not whole_model:
        own = {k: v for k, v in own.items() if k.startswith('backbone.')} or own
    content = load_file(path)
    found = get_state_dict(content)
    if not whole_model:  # as for pretrained files, the number of clusters and some norms may differ
        backbone = getattr(model, 'backbone', None)
        patterns = (getattr(backbone, a, None) for a in ('may_change_shape', 'may_be_absent'))
        exempt = find_exempt(*(_strip_backbone(state) for state in (own, found)), *patterns)
        own = {k: v for k, v in own.items() if k.removeprefix('backbone.') not in exempt}
    found = {key: value for key, value in found.items() if key in own}
    problem = describe_mismatch(find_mismatch(own, found), len(own))
    if problem:
        part = type(model).__name__ if whole_model else 'backbone'
        raise UserError(f"checkpoint '{path}' is of another model than this {part}: {problem}")
    return content


def _strip_backbone(state: dict) -> dict:
    return {key.removeprefix('backbone.'): value for key, value in state.items()}


def check_work_dir(work_dir: str) -> None:
    """The folder can be written, or made."""
    folder = Path(work_dir).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--work-dir '{work_dir}' is a file; choose another")
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--work-dir '{work_dir}' cannot be written: {error.strerror} in '{folder}'"
        ) from error

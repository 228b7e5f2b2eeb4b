"""The data sets that a config names."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, DefaultScope

from ..errors import UserError
from .pictures import check_regular, explain, guard_datasets
from .toolboxes import TOOLBOXES


def find_datasets(dataset: dict) -> Iterator[dict]:
    """The data sets proper, below wrappers that repeat, concatenate or mix them."""
    inner = dataset.get('datasets') or ([dataset.dataset] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for child in inner:
        yield from find_datasets(child)


def build_dataset(cfg: Config, split: str) -> BaseDataset:
    """The data set of a split, alone or in its wrappers.

    Raises:
        UserError: When the config has none, or it holds no sample.
    """
    loader = f'{split}_dataloader'
    if cfg.get(loader) is None:
        raise UserError(f'the config has no {loader}')
    prepare_loading(cfg)
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            return DATASETS.build(cfg[loader].dataset)
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise UserError(
            f'no image of {loader} is left; check ann_file, suffixes, metainfo and filter_cfg'
        ) from error


def build_pipeline(cfg: Config) -> Compose:
    """The config's test pipeline without its annotations, from a picture to a model's input.

    Raises:
        UserError: When the config has no test data that are read from picture files.
    """
    dataset = next(find_datasets((cfg.get('test_dataloader') or {}).get('dataset', {})))
    steps = [s for s in dataset.get('pipeline', ()) if 'LoadAnnotations' not in str(s['type'])]
    if not any('LoadImage' in str(step['type']) for step in steps):
        raise UserError('no pipeline of test_dataloader reads a picture from a file')
    prepare_loading(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(steps)


def find_dataset_meta(cfg: Config) -> dict:
    """What the config's test data say of their classes."""
    prepare_loading(cfg)
    dataset = next(find_datasets((cfg.get('test_dataloader') or {}).get('dataset', {})))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        kind = dataset.get('type')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    own = {'classes': dataset.classes} if dataset.get('classes') else {}
    return {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {}), **own}


def find_classes(cfg: Config, known: dict) -> dict:
    """``classes``, and ``palette`` where known: a checkpoint's, or those of the test data's type.

    Where neither names as many classes as the model has, they are numbers.
    """
    number = find_num_classes(cfg.model)
    for meta in (known, find_dataset_meta(cfg)):
        classes = meta.get('classes') or ()
        if isinstance(classes, str):  # a file, which only a config may name
            is_file = meta is not known and Path(classes).is_file()
            classes = list_from_file(classes) if is_file else ()
        if len(classes) >= max(number, 1):
            return dict(meta, classes=tuple(classes))
    return dict(classes=tuple(map(str, range(number))))


def find_num_classes(node: object) -> int:
    """The first ``num_classes`` in or below a config's node, or 0."""
    if isinstance(node, dict) and isinstance(node.get('num_classes'), int):
        return node['num_classes']
    children = node.values() if isinstance(node, dict) else node
    nested = (child for child in children if isinstance(child, dict | list | tuple))
    return next(filter(None, map(find_num_classes, nested)), 0)


def prepare_loading(cfg: Config) -> None:
    """Import the data sets of a config's toolbox, whose transforms say which file they cannot read.

    What the toolbox prints at that import (a service of its makers is not installed) is left out.
    """
    if cfg.get('default_scope') in TOOLBOXES:
        with redirect_stdout(io.StringIO()):
            importlib.import_module(f'{cfg.default_scope}.datasets')
    guard_datasets()
    for transform, key in ((LoadImageFromFile, 'img_path'), (LoadAnnotations, 'seg_map_path')):
        if not hasattr(transform.transform, 'names_file'):
            transform.transform = _naming_file(transform.transform, key)


def _naming_file(load: Callable, key: str) -> Callable:
    def transform(self: object, results: dict) -> dict | None:
        path = results.get(key)
        check_regular(path)
        try:
            return load(self, results)
        except Exception as error:  # OpenCV's, Pillow's, the file system's
            raise UserError(
                f"'{path}' cannot be read as an image{explain(path)}; mend or remove it"
            ) from error

    transform.names_file = True
    return transform

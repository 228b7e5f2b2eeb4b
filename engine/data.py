"""The data sets that a config names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS, DefaultScope

from ..errors import UserError


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
    name_unreadable_files()
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
    name_unreadable_files()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(steps)


def find_dataset_meta(cfg: Config) -> dict:
    """What the config's test data say of their classes."""
    dataset = next(find_datasets((cfg.get('test_dataloader') or {}).get('dataset', {})))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        kind = dataset.get('type', '')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    own = {'classes': dataset.classes} if dataset.get('classes') else {}
    return {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {}), **own}


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

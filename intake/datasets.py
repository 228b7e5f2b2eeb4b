"""The data sets and evaluators of a written config, in the words of each toolbox."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

from .code import Name
from .folder import CLASSES, DETECTION, INSTANCES, SEMANTIC


def evaluate_boxes(dataset: dict, masks: bool) -> dict:
    """COCO's average precision; the evaluator joins no paths."""
    path = dataset['ann_file']
    if not path.startswith('/'):
        path = Name(f'data_root + {path!r}')
    return dict(ann_file=path, metric=['bbox', 'segm'] if masks else ['bbox'])


class Form(NamedTuple):
    """How a task's data are named in a config.

    Args:
        kind: The class of its data sets.
        evaluate: Settings of the evaluator of a data set, and whether masks count.
    """

    kind: str
    evaluate: Callable[[dict, bool], dict]


FORMS = {
    DETECTION: Form('CocoDataset', evaluate_boxes),
    INSTANCES: Form('CocoDataset', evaluate_boxes),
    SEMANTIC: Form('BaseSegDataset', lambda *_: dict(iou_metrics=['mIoU'])),
    CLASSES: Form('CustomDataset', lambda *_: dict(topk=(1,))),
}


def make_dataset(
    before: dict, task: str, root: str, settings: dict, training: bool = False
) -> dict:
    """What a config says in place of the data set that it inherits.

    Args:
        before: That data set.
        task: Of the data.
        root: The folder.
        settings: Where the data are, from :func:`mmdense.intake.converting.convert`.
        training: Whether they are trained on.
    """
    meta = dict(classes=Name('classes'))
    if task == SEMANTIC:
        meta['palette'] = Name('palette')
    below = settings['data_root'].removeprefix(root)
    place = Name(f'data_root + {below!r}') if below else Name('data_root')
    new = dict(metainfo=meta) | settings | dict(data_root=place)
    if training and task in (DETECTION, INSTANCES):
        new['filter_cfg'] = dict(filter_empty_gt=False, min_size=0)  # every picture counts
    kind = FORMS[task].kind
    if before.get('type') == kind and 'dataset' not in before:
        return new
    return dict(_delete_=True, type=kind) | new | dict(pipeline=get_pipeline(before))


def get_pipeline(dataset: dict) -> list[dict]:
    """The pipeline of a data set, or of the one in its wrapper, for labels that count from 0."""
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    steps = copy.deepcopy([dict(step) for step in dataset['pipeline']])
    for step in steps:
        step.pop('reduce_zero_label', None)
    return [as_plain(step) for step in steps]


def as_plain(value: object) -> object:
    """Without the marks of toolboxes that configs which inherit across them get."""
    if isinstance(value, dict):
        return {key: as_plain(child) for key, child in value.items() if key != '_scope_'}
    if isinstance(value, list | tuple):
        return type(value)(map(as_plain, value))
    return value


def set_classes(node: object, number: int, before: int = 0) -> object | None:
    """What of a model counts classes, for another number of them; None if nothing does.

    Lists are written whole, since a config cannot change a part of one. Weights of classes become
    those of the first; what stands behind the classes stays.

    Args:
        node: The model, or a part of it.
        number: How many classes there are.
        before: How many the head has that the part is of.
    """
    if isinstance(node, list | tuple):
        found = [set_classes(child, number, before) for child in node]
        changed = [merge(child, new) for child, new in zip(node, found)]
        return changed if any(new is not None for new in found) else None
    if not isinstance(node, dict):
        return None
    before = node.get('num_classes', before)
    found = {key: set_classes(child, number, before) for key, child in node.items()}
    found = {key: new for key, new in found.items() if new is not None}
    if isinstance(node.get('num_classes'), int):
        found['num_classes'] = number
    if isinstance(node.get('class_weight'), list) and before:
        weights = node['class_weight']
        found['class_weight'] = weights[:1] * number + weights[before:]
    return found or None


def merge(old: object, new: object) -> object:
    """A part of a config with its changes."""
    if isinstance(old, dict) and isinstance(new, dict):
        return as_plain(old) | {key: merge(old.get(key), child) for key, child in new.items()}
    return as_plain(old) if new is None else new

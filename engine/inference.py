"""From a config, a checkpoint and a picture to a prediction, the same for the three toolboxes.

``load_model`` gives the model with its weights, ``load_image`` takes a picture through the config's
own test pipeline, ``predict`` runs the one on the other, ``describe`` makes JSON of what comes out.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from pycocotools import mask as coco_mask
from torch import nn

from .checkpoint import get_state_dict, load_file
from .checks import check_checkpoint, check_model
from .errors import UserError
from .launch import name_unreadable_files, replace_sync_bn

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
TASKS = {'mmpretrain': 'classifier', 'mmdet': 'detector', 'mmseg': 'segmentor'}
TOP = 5  # classes that a classifier's description names


def pick_device(device: str | None) -> torch.device:
    """The device of this name, or when there is none the first GPU, or the CPU.

    Raises:
        UserError: When the machine has no such device.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=chosen)
    except (AssertionError, RuntimeError) as error:
        raise UserError(f"--device '{device}' is no device of this machine") from error
    return chosen


def check_task(cfg: Config, path: str) -> str:
    """'classifier', 'detector' or 'segmentor'.

    Raises:
        UserError: When the config is of none of them.
    """
    scope = cfg.get('default_scope')
    if 'model' not in cfg or scope not in TASKS:
        raise UserError(f"'{path}' is no config of a classifier, detector or segmentor")
    return TASKS[scope]


def build_model(cfg: Config, device: torch.device | str = 'cpu') -> nn.Module:
    """The model of a config in eval mode, without the pretrained file that it may name.

    Raises:
        UserError: When the config's model cannot be built.
    """
    model = ConfigDict(cfg.model.to_dict())
    model.pop('pretrained', None)
    model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:  # where classifiers have it; a runner hands it on too
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg = Config(dict(model=model, default_scope=cfg.default_scope))
    if torch.device(device).type != 'cuda':
        replace_sync_bn(cfg.model)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # losses of mmseg speak of training
        return check_model(cfg).to(device).eval()


def load_model(cfg: Config, checkpoint: str, device: torch.device | str = 'cpu') -> nn.Module:
    """The model with every tensor of the checkpoint, in eval mode.

    Its ``dataset_meta`` has the classes, and colours where known: the checkpoint's, or those of the
    config's data set.

    Raises:
        UserError: When the file is missing, unreadable or of another model.
    """
    model = build_model(cfg, device)
    check_checkpoint(model, checkpoint, whole_model=True)
    content = load_file(checkpoint)
    model.load_state_dict(get_state_dict(content), strict=False)
    model.dataset_meta = find_dataset_meta(cfg) | find_saved_meta(content)
    if 'classes' not in model.dataset_meta:
        names = tuple(map(str, range(find_num_classes(cfg.model))))
        model.dataset_meta['classes'] = names
    return model


def find_saved_meta(content: dict) -> dict:
    """``classes`` and ``palette`` that a checkpoint's file holds, in small letters."""
    meta = content.get('meta', {})
    meta = meta.get('dataset_meta') or meta
    meta = {key.lower(): value for key, value in meta.items() if isinstance(key, str)}
    return {key: meta[key] for key in ('classes', 'palette') if meta.get(key) is not None}


def find_dataset_meta(cfg: Config) -> dict:
    """``classes`` and ``palette`` of the config's test data, as far as its type knows them."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        known = getattr(registry.get(dataset.get('type', '')), 'METAINFO', {})
    meta = {**known, **(dataset.get('metainfo') or {})}
    return {key: meta[key] for key in ('classes', 'palette') if meta.get(key) is not None}


def find_num_classes(node: dict) -> int:
    """The first ``num_classes`` below a config's node, or 0."""
    if isinstance(node.get('num_classes'), int):
        return node['num_classes']
    children = [child for child in node.values() if isinstance(child, dict)]
    return next(filter(None, map(find_num_classes, children)), 0)


def build_pipeline(cfg: Config) -> Compose:
    """The config's test pipeline without its annotations, from a picture to a model's input.

    Raises:
        UserError: When the config has no test data.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
    if 'pipeline' not in dataset:
        raise UserError('the config has no test_dataloader.dataset.pipeline to prepare a picture')
    name_unreadable_files()
    steps = [step for step in dataset.pipeline if 'LoadAnnotations' not in step.type]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(steps)


def load_image(pipeline: Compose, path: str | Path) -> dict:
    """A picture, ready for ``model.test_step``: a batch of one.

    Raises:
        UserError: When the file is missing or no picture.
    """
    if not Path(path).is_file():
        raise UserError(f"image '{path}' does not exist")
    return pseudo_collate([pipeline(dict(img_path=str(path), img_id=0, seg_fields=[]))])


def find_images(inputs: list[str]) -> dict[str, Path]:
    """The pictures that the arguments name, folders searched through, by a name for their results.

    The name is the path below the folder, without the suffix where that leaves it unique.

    Raises:
        UserError: When a path is missing or nothing is a picture.
    """
    found = {}
    for path in map(Path, inputs):
        if path.is_dir():
            files = sorted(p for p in path.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise UserError(f"folder '{path}' holds no image ({', '.join(IMAGE_SUFFIXES)})")
            root = path
        elif path.is_file():
            files, root = [path], path.parent
        else:
            raise UserError(f"image '{path}' does not exist")
        for file in files:
            name = str(file.relative_to(root).with_suffix(''))
            number = 2
            while found.get(name, file) != file:
                name, number = f'{file.relative_to(root).with_suffix("")}_{number}', number + 1
            found[name] = file
    return found


@torch.no_grad()
def predict(model: nn.Module, batch: dict) -> BaseDataElement:
    """What the model finds in a picture of :func:`load_image`: the toolbox's data sample."""
    return model.test_step(batch)[0].cpu()


def describe(sample: BaseDataElement, classes: tuple[str, ...], score_thr: float) -> dict:
    """A prediction as plain data, in the toolboxes' words; boxes are x1, y1, x2, y2 in pixels.

    Args:
        sample: Of :func:`predict`.
        classes: Their names.
        score_thr: Instances of a detector below it are left out.
    """
    if 'pred_sem_seg' in sample:
        labels, counts = np.unique(sample.pred_sem_seg.data.numpy(), return_counts=True)
        shares = counts / counts.sum()
        return dict(
            labels=labels.tolist(),
            classes=[classes[i] for i in labels],
            shares=[round(share, 6) for share in shares.tolist()],
        )
    if 'pred_instances' in sample:
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        content = dict(
            labels=found.labels.tolist(),
            classes=[classes[i] for i in found.labels.tolist()],
            scores=found.scores.tolist(),
            bboxes=found.bboxes.tolist(),
        )
        if 'masks' in found:
            content['masks'] = [encode_mask(mask) for mask in found.masks.numpy()]
        return content
    scores, labels = sample.pred_score.topk(min(TOP, len(sample.pred_score)))
    return dict(
        labels=labels.tolist(),
        classes=[classes[i] for i in labels.tolist()],
        scores=scores.tolist(),
    )


def encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) as COCO's run lengths."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=rle['size'], counts=rle['counts'].decode())

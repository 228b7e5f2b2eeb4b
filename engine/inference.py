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
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from pycocotools import mask as coco_mask
from torch import nn

from .checkpoint import get_classes, get_state_dict
from .checks import check_checkpoint, check_model, find_datasets
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
    if 'model' not in cfg or 'backbone' not in cfg.model or scope not in TASKS:
        raise UserError(
            f"'{path}' is no config of a classifier, detector or segmentor with a backbone"
        )
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
    content = check_checkpoint(model, checkpoint, whole_model=True)
    model.load_state_dict(get_state_dict(content), strict=False)
    model.dataset_meta = find_classes(cfg, content)
    return model


def find_classes(cfg: Config, checkpoint: dict) -> dict:
    """``classes``, and ``palette`` where known: the checkpoint's, or those of the test data's type.

    Where neither names as many classes as the model has, they are numbers.
    """
    number = find_num_classes(cfg.model)
    for meta in (get_classes(checkpoint.get('meta') or {}), find_dataset_meta(cfg)):
        classes = meta.get('classes') or ()
        if isinstance(classes, str):
            classes = list_from_file(classes) if Path(classes).is_file() else ()
        if len(classes) >= max(number, 1):
            return dict(meta, classes=tuple(classes))
    return dict(classes=tuple(map(str, range(number))))


def find_dataset_meta(cfg: Config) -> dict:
    """What the config's test data say of their classes."""
    dataset = next(find_datasets((cfg.get('test_dataloader') or {}).get('dataset', {})))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        kind = dataset.get('type', '')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    own = {'classes': dataset.classes} if dataset.get('classes') else {}
    return {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {}), **own}


def find_num_classes(node: object) -> int:
    """The first ``num_classes`` in or below a config's node, or 0."""
    if isinstance(node, dict) and isinstance(node.get('num_classes'), int):
        return node['num_classes']
    children = node.values() if isinstance(node, dict) else node
    nested = (child for child in children if isinstance(child, dict | list | tuple))
    return next(filter(None, map(find_num_classes, nested)), 0)


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


def load_image(pipeline: Compose, path: str | Path) -> dict:
    """A picture, ready for ``model.test_step``: a batch of one.

    Raises:
        UserError: When the file is missing or no picture.
    """
    if Path(path).is_dir():
        raise UserError(f"image '{path}' is a folder; name one picture")
    if not Path(path).is_file():
        raise UserError(f"image '{path}' does not exist")
    return pseudo_collate([pipeline(dict(img_path=str(path), img_id=0, seg_fields=[]))])


def find_images(inputs: list[str], out_dir: Path) -> dict[str, Path]:
    """The pictures that the arguments name, folders searched through, by a name for their results.

    The name is the path below the folder without the suffix; a second one of that name gets a
    number. Results of an earlier call, below ``out_dir``, are not searched.

    Raises:
        UserError: When a path is missing or nothing is a picture.
    """
    found = {}
    for path in map(Path, inputs):
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob('*')
                if file.suffix.lower() in IMAGE_SUFFIXES
                and out_dir.resolve() not in file.resolve().parents
            )
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
    sample = model.test_step(batch)[0]
    if 'seg_logits' in sample:  # of every class, as large as the picture
        del sample.seg_logits
    return sample.cpu()


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

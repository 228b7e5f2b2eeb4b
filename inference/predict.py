"""From pictures to predictions, the same for the three toolboxes.

``load_image`` takes a picture through the config's own test pipeline, ``predict`` runs a model on
it, ``describe`` makes JSON of what comes out.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn

from ..engine.pictures import SUFFIXES
from ..engine.toolboxes import find_toolbox
from ..errors import UserError
from ..files import replacing


def load_image(pipeline: Compose, path: str | Path) -> dict:
    """A picture, ready for ``model.test_step``: a batch of one.

    Raises:
        UserError: When the file is missing or no picture.
    """
    if Path(path).is_dir():
        raise UserError(f"image '{path}' is a folder; name one picture")
    if not Path(path).exists():
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
                if file.suffix.lower() in SUFFIXES
                and out_dir.resolve() not in file.resolve().parents
            )
            if not files:
                raise UserError(f"folder '{path}' holds no image ({', '.join(SUFFIXES)})")
            root = path
        elif path.exists():
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


def describe(
    cfg: Config, sample: BaseDataElement, classes: tuple[str, ...], score_thr: float
) -> dict:
    """A prediction as plain data, in the toolboxes' words; boxes are x1, y1, x2, y2 in pixels.

    Args:
        cfg: Whose toolbox made the sample.
        sample: Of :func:`predict`.
        classes: Their names.
        score_thr: Instances of a detector below it are left out.
    """
    return find_toolbox(cfg).describe(sample, classes, score_thr)


def write_results(
    out_dir: Path, name: str, content: dict, overlay: np.ndarray, sample: BaseDataElement
) -> None:
    """Write what was found in a picture: the overlay, the JSON, of a segmentor the label map.

    All of these or, after an error, none.

    Args:
        out_dir: Of vis/NAME.png, preds/NAME.json and preds/NAME.png.
        name: A name of :func:`find_images`.
        content: Of :func:`describe`.
        overlay: (H, W, 3) RGB.
        sample: Of :func:`predict`.

    Raises:
        UserError: When they cannot be written.
    """
    files = {out_dir / 'vis' / f'{name}.png': encode(overlay[..., ::-1])}
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data[0].numpy()
        labels = labels.astype('uint8' if labels.max() < 256 else 'uint16')
        files[out_dir / 'preds' / f'{name}.png'] = encode(labels)
    files[out_dir / 'preds' / f'{name}.json'] = json.dumps(content).encode()
    with ExitStack() as stack:
        for path, data in files.items():
            stack.enter_context(replacing(path)).write_bytes(data)


def encode(picture: np.ndarray) -> bytes:
    """A picture (H, W) or (H, W, 3) BGR as a PNG file."""
    return cv2.imencode('.png', picture)[1].tobytes()

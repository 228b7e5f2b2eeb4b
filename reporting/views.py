"""Pictures of a page: read again from their files, with truth and prediction side by side."""

from __future__ import annotations

import mmcv
import numpy as np
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ..errors import UserError
from ..inference.drawing import draw_sample

GAP = 8  # white pixels between truth and prediction


def read_picture(path: str) -> np.ndarray:
    """A picture's file as RGB (H, W, 3).

    Raises:
        UserError: When it cannot be read any more.
    """
    try:
        return np.ascontiguousarray(mmcv.imread(path, channel_order='rgb'))
    except Exception as error:  # OpenCV's, a storage's, the file system's
        raise UserError(f"'{path}' cannot be read again for the report: {error}") from error


def draw_both(visualizer: Visualizer, path: str, sample: BaseDataElement) -> np.ndarray:
    """A picture with its annotation, and beside it with what was predicted, as RGB.

    Args:
        visualizer: Of :func:`mmdense.inference.drawing.build_visualizer`.
        path: Of the picture.
        sample: A toolbox's, with both.
    """
    picture = read_picture(path)
    truth, found = (draw_sample(visualizer, picture, sample, predicted=p) for p in (False, True))
    gap = np.full((len(truth), GAP, 3), 255, np.uint8)
    return np.concatenate([truth, gap, found], axis=1)

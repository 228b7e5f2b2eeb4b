"""Parts of pages that all tasks have: mistakes, calibration, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from ..errors import UserError
from ..inference.drawing import build_visualizer
from .measures import calibration_error, list_confused
from .page import Gallery, Picture, Plot, Table
from .plots import draw_confusion, draw_reliability
from .views import draw_both

NO_FILES = 'The pictures of this data set are no files of their own.'


def show_mistakes(
    matrix: np.ndarray, names: Sequence[str], counted: str
) -> list[str | Plot | Table]:
    """A confusion matrix and its largest entries beside the diagonal.

    Args:
        matrix: (C, C) counts, a row for each truth and a column for each prediction.
        names: Of the classes.
        counted: What was counted, e.g. 'pixels'.
    """
    caption = f'What became of the {counted} of each class, a row; cells in percent of it.'
    plot = Plot(draw_confusion(matrix, names), caption)
    confused = list_confused(matrix, names)
    if not confused:
        return [plot, 'There are no mistakes.']
    columns = ['truth', 'taken for', counted, 'of the truth, %']
    return [plot, Table(columns, confused, 'The most frequent mistakes.', decimals=1)]


def show_calibration(bins: np.ndarray, right: str, counted: str) -> Plot:
    """A reliability diagram.

    Args:
        bins: (3, BINS) of :func:`mmdense.reporting.measures.bin_scores`.
        right: What the share of right ones is called, e.g. 'accuracy'.
        counted: What has scores.
    """
    return Plot(
        draw_reliability(bins, right, counted),
        f'How often {counted} of a score are right. On the dashed line scores say how often; below '
        f'it the model is too sure. Expected calibration error: {calibration_error(bins):.4f}.',
    )


def show_galleries(
    worst: list[dict], others: list[dict], draw: Callable[[dict], np.ndarray], width: int
) -> list[str | Gallery]:
    """The worst pictures and the others, each below a line.

    Args:
        worst: Records with ``img_path``, and ``says`` for the caption.
        others: Likewise.
        draw: Makes the picture of a record.
        width: Pixels that each wants.
    """
    parts = []
    for title, records in (('The worst first:', worst), ('Others, drawn by lot:', others)):
        pictures = []
        for record in records:
            try:
                picture = draw(record)
            except UserError as error:  # whatever else the page shows is not lost for it
                parts.append(str(error))
            else:
                pictures.append(Picture(picture, f'{record["says"]}: {record["img_path"]}'))
        parts += [title, Gallery(pictures, width)] if pictures else []
    return parts or [NO_FILES]


def show_pairs(
    cfg: Config,
    dataset_meta: dict,
    worst: list[dict],
    others: list[dict],
    to_sample: Callable[[dict], BaseDataElement],
) -> list[str | Gallery]:
    """Pictures with truth and prediction side by side.

    Args:
        cfg: Whose toolbox draws.
        dataset_meta: ``classes``, and ``palette`` where known.
        worst: Records as for :func:`show_galleries`.
        others: Likewise.
        to_sample: Makes the toolbox's sample of a record.
    """
    visualizer = build_visualizer(cfg, dataset_meta)

    def draw(record: dict) -> np.ndarray:
        return draw_both(visualizer, record['img_path'], to_sample(record))

    galleries = show_galleries(worst, others, draw, width=440)
    return ['Truth on the left, prediction on the right.', *galleries]

"""What pages count: scores beside how often they are right, mistakes, pictures worth a look."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

BINS = 10  # of scores from 0 to 1
WORST, ORDINARY = 8, 4  # pictures on a page
T = TypeVar('T')


def bin_scores(scores: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] and whether each was right -> sums over bins of scores (3, BINS).

    The rows are the number of scores, their sum, and how many were right. Such sums of parts of the
    data add up to those of all.
    """
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    weights = (None, scores, is_right)
    return np.stack([np.bincount(bins, weight, BINS) for weight in weights]).astype(float)


def calibration_error(bins: np.ndarray) -> float | None:
    """The expected calibration error (Guo et al., ICML 2017, equation 3) of :func:`bin_scores`.

    None where there are no scores.
    """
    count, score, right = bins
    return float(np.abs(right - score).sum() / count.sum()) if count.any() else None


def list_confused(
    matrix: np.ndarray, names: Sequence[str], number: int = 15
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: truth, prediction, how often, share of that truth in percent.

    Args:
        matrix: (C, C) counts, a row for each truth and a column for each prediction.
        names: C of them.
        number: How many at most.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind='stable')[:number]
    pairs = [divmod(int(i), len(matrix)) for i in order if wrong.flat[i]]
    totals = matrix.sum(axis=1)
    return [
        (names[t], names[p], int(matrix[t, p]), 100 * float(matrix[t, p] / totals[t]))
        for t, p in pairs
    ]


def draw_lot(path: str) -> int:
    """A number that looks random, and is the same whenever and wherever the picture is seen."""
    return zlib.crc32(path.encode())


def choose_pictures(
    records: Sequence[T], is_bad: Callable[[T], bool], goodness: Callable[[T], object]
) -> tuple[list[T], list[T]]:
    """The worst of some records, the very worst first, and a few of the others by lot.

    Args:
        records: Each has an ``img_path``, or None for a picture that is no file.
        is_bad: Whether a record may be among the worst.
        goodness: What the worst have least of.
    """
    files = [record for record in records if record['img_path']]
    worst = sorted(filter(is_bad, files), key=goodness)[:WORST]
    taken = {record['img_path'] for record in worst}
    others = [record for record in files if record['img_path'] not in taken]
    return worst, sorted(others, key=lambda record: draw_lot(record['img_path']))[:ORDINARY]

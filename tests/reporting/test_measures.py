"""Counts of scores and mistakes beside scikit-learn's; the worst pictures, and others by lot."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from mmdense.reporting.measures import (
    BINS,
    ORDINARY,
    WORST,
    bin_scores,
    calibration_error,
    choose_pictures,
    list_confused,
)

RNG = np.random.default_rng(0)


def test_bins_beside_scikit_learn():
    scores = RNG.uniform(size=500)
    right = RNG.uniform(size=500) < scores**2
    count, score, is_right = bin_scores(scores, right)
    shares, means = calibration_curve(right, scores, n_bins=BINS)
    np.testing.assert_array_equal(count, np.histogram(scores, BINS, (0, 1))[0])
    np.testing.assert_allclose(is_right / count, shares)
    np.testing.assert_allclose(score / count, means)
    error = (np.abs(shares - means) * count).sum() / 500
    assert calibration_error(bin_scores(scores, right)) == pytest.approx(error)


@pytest.mark.parametrize(
    'scores, right, error',
    [
        ([0.95, 0.95, 0.25], [1, 0, 0], (2 * 0.45 + 0.25) / 3),
        ([1.0, 1.0], [1, 1], 0),
        ([1.0, 0.0], [0, 1], 1),
        ([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 0),
        ([], [], None),
    ],
)
def test_calibration_error(scores, right, error):
    bins = bin_scores(np.array(scores, float), np.array(right, bool))
    assert bins.shape == (3, BINS) and bins[0].sum() == len(scores)
    assert calibration_error(bins) == (error if error is None else pytest.approx(error))


def test_parts_add_up():
    scores, right = RNG.uniform(size=100), RNG.uniform(size=100) < 0.5
    parts = bin_scores(scores[:30], right[:30]) + bin_scores(scores[30:], right[30:])
    np.testing.assert_allclose(parts, bin_scores(scores, right))


def test_the_most_frequent_mistakes():
    matrix = confusion_matrix([0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 0, 1, 0, 0, 2])
    expected = [('a', 'b', 3, 75), ('c', 'a', 2, 200 / 3), ('b', 'a', 1, 50)]
    assert list_confused(matrix, 'abc') == [(*row, pytest.approx(p)) for *row, p in expected]
    assert len(list_confused(matrix, 'abc', number=2)) == 2
    assert list_confused(np.diag([3, 0, 1]), 'abc') == []


def make_records(number: int) -> list[dict]:
    values = RNG.permutation(number)
    return [dict(img_path=f'{i}.jpg', good=int(value)) for i, value in enumerate(values)]


def choose(records: list[dict]) -> tuple[list[dict], list[dict]]:
    return choose_pictures(records, lambda r: r['good'] < 50, lambda r: r['good'])


def test_the_worst_pictures_first():
    worst, others = choose(make_records(100))
    assert [r['good'] for r in worst] == list(range(WORST))
    assert len(others) == ORDINARY and all(r not in worst for r in others)


def test_lots_are_the_same_in_any_order():
    records = make_records(100)
    assert choose(records) == choose(records[::-1])
    paths = [[r['img_path'] for r in choose(make_records(100))[1]] for _ in range(20)]
    assert len(set(map(tuple, paths))) < 20  # the worst are others, the lots the same


@pytest.mark.parametrize(
    'goods, number, rest', [([], 0, 0), ([60, 70], 0, 2), ([3, 60], 1, 1)], ids=str
)
def test_few_pictures(goods, number, rest):
    worst, others = choose([dict(img_path=f'{g}.jpg', good=g) for g in goods])
    assert (len(worst), len(others)) == (number, rest)


def test_pictures_that_are_no_files():
    assert choose([dict(img_path=None, good=1)]) == ([], [])

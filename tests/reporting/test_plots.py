"""Figures of few and many classes."""

import numpy as np
import pytest

from mmdense.reporting.page import embed_plot
from mmdense.reporting.plots import draw_confusion, draw_reliability


@pytest.mark.parametrize(
    'number, cells, names', [(2, 2, 2), (15, 15, 15), (16, 0, 16), (60, 0, 60), (300, 0, None)]
)
def test_confusion_matrices(number, cells, names):
    """Numbers and names while they can be read; the figure does not grow without end."""
    figure = draw_confusion(5 * np.eye(number, dtype=int), ['a long name of a class'] * number)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == cells * ['100']
    if names is not None:
        assert len(axes.get_xticks()) == len(axes.get_yticks()) == names
        assert axes.get_yticklabels()[0].get_text() == 'a long name of a cl…'
    assert max(figure.get_size_inches()) < 12


def test_shares_are_of_the_truth():
    figure = draw_confusion(np.array([[3, 1], [0, 0]]), 'ab')
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[0.75, 0.25], [0, 0]])


@pytest.mark.parametrize('count, scale', [(50, 'linear'), (5000, 'log')])
def test_reliability(count, scale):
    """A bar for each bin, empty ones of no height; much and little are both seen."""
    bins = np.zeros((3, 10))
    bins[:, 9], bins[:, 2] = (count, 0.95 * count, 0.9 * count), (4, 1, 2)
    upper, lower = draw_reliability(bins, 'accuracy', 'pictures').axes
    heights = [bar.get_height() for bar in upper.patches]
    assert heights == pytest.approx([0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0.9])
    means, shares = upper.lines[1].get_data()
    assert list(means) == pytest.approx([0.25, 0.95]) and list(shares) == pytest.approx([0.5, 0.9])
    assert lower.get_yscale() == scale
    assert embed_plot(lower.figure).startswith('data:image/png;base64,')

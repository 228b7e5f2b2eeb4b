"""Pages of views, drawn for a picture and a model of any task."""

import cv2
import numpy as np
import pytest
import torch
from helpers import build

from mmdense.families.views import summarize
from mmdense.inference.visualize import draw_view, extent_of, look, tell_apart


@pytest.mark.parametrize(
    'kind, rows, columns', [('clusters', 2, 4), ('attention', 1, 3), ('features', 2, 4)]
)
def test_pages(kind, rows, columns, tmp_path):
    """Rows of four panels: the picture, a summary where there is one, then up to max_maps maps."""
    model = build('PaCaViT').eval()
    image = torch.randn(1, 3, 96, 160)
    view, *_ = look(model, lambda: model(image), (100, 50), (kind,))[kind]
    picture = np.random.default_rng(0).integers(0, 256, (80, 140, 3), np.uint8)
    draw_view(picture, view, tmp_path / 'page.png', max_maps=6)
    page = cv2.imread(str(tmp_path / 'page.png'))
    assert page.shape[1] == 260 * columns and page.std() > 10
    assert round(page.shape[0] / (260 * 80 / 140 + 30)) == rows
    assert [path.name for path in tmp_path.iterdir()] == ['page.png']


def test_where_maps_lie_on_a_picture():
    """Their stride; or where there is none the power of two that covers the picture."""
    picture = np.zeros((64, 100, 3))
    view = summarize('x', torch.rand(3, 5, 7), 16)
    assert extent_of(view, picture) == (0, 7 * 16, 5 * 16, 0)
    unknown = summarize('x', torch.rand(3, 16, 25), None)
    assert extent_of(unknown, picture) == (0, 100, 64, 0)
    padded = summarize('x', torch.rand(3, 10, 14), None)  # 64 / 10 lies between 4 and 8
    assert extent_of(padded, picture) == (0, 112, 80, 0)


def test_neighbours_have_colours_that_differ():
    colours = tell_apart(20)
    assert colours.shape == (20, 3)
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.4
    assert len(np.unique(colours.round(3), axis=0)) == 20

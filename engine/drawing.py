"""Views of a model (:mod:`mmdense.backbones.views`) drawn over the picture they are of."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .files import replacing

if TYPE_CHECKING:
    from ..backbones.views import View

COLUMNS = 4
INCHES = 2.6  # a panel's width
OPACITY = 0.6  # of what lies on the picture


def draw_view(picture: np.ndarray, view: View, path: str | Path, max_maps: int) -> None:
    """Write a page: the picture, what sums the view up, and its maps as heat maps.

    Args:
        picture: (H, W, 3) RGB, what the model saw.
        view: Its maps start at the picture's upper left corner and may reach beyond the others.
        path: The file, ``.png`` or what else matplotlib writes.
        max_maps: How many maps at most; of a partition those with the most positions.
    """
    order = np.arange(len(view.maps))
    owners = view.maps.argmax(dim=0).numpy()
    if view.partition:
        sizes = np.bincount(owners.ravel(), minlength=len(order))
        order = np.argsort(-sizes, kind='stable')
    order = order[:max_maps]
    extra = view.partition or view.colours is not None
    rows = math.ceil((1 + extra + len(order)) / COLUMNS)
    height = INCHES * picture.shape[0] / picture.shape[1] + 0.3
    figure = Figure(figsize=(COLUMNS * INCHES, rows * height), layout='constrained', dpi=100)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()

    panels = iter(axes)
    show_picture(next(panels), picture, name_place(view.name))
    if view.query is not None:
        axes[0].plot(*view.query, 'P', color='red', markersize=9, markeredgecolor='white')
    if view.partition:
        title = f'partition: {(sizes > 0).sum()} of {len(sizes)}'
        show_colours(next(panels), picture, view, tell_apart(len(sizes))[owners], title)
    if view.colours is not None:
        show_colours(next(panels), picture, view, view.colours.numpy(), 'principal components')
    for i in order:
        show_heat(next(panels), picture, view, i)
    with replacing(path) as part:
        figure.savefig(part)


def name_place(name: str) -> str:
    """'stage1_block2' -> 'stage 1, block 2'."""
    return re.sub(r'(\d+)', r' \1', name).replace('_', ', ')


def show_picture(axis: Axes, picture: np.ndarray, title: str) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, cmap='gray', extent=(0, width, height, 0))
    axis.set_title(title, fontsize=9)


def show_colours(
    axis: Axes, picture: np.ndarray, view: View, colours: np.ndarray, title: str
) -> None:
    """Colours (h, w, 3) per position over the picture."""
    show_picture(axis, picture, title)
    axis.imshow(colours, alpha=OPACITY, extent=extent_of(view), interpolation='nearest')
    cut_to(axis, picture)


def show_heat(axis: Axes, picture: np.ndarray, view: View, index: int) -> None:
    """One map over the grey picture; a signed one blue below zero and red above."""
    show_picture(axis, picture.mean(axis=2), view.labels[index])
    heat = view.maps[index].numpy()
    limit = np.abs(heat).max() if view.signed else None
    axis.imshow(
        heat,
        cmap='coolwarm' if view.signed else 'inferno',
        vmin=-limit if view.signed else None,
        vmax=limit,
        alpha=OPACITY,
        extent=extent_of(view),
        interpolation='bilinear',
    )
    cut_to(axis, picture)


def extent_of(view: View) -> tuple[int, int, int, int]:
    """Left, right, lower and upper end of a view's maps, in pixels of the picture."""
    height, width = view.maps.shape[1:]
    return 0, width * view.stride, height * view.stride, 0


def cut_to(axis: Axes, picture: np.ndarray) -> None:
    """Hide what lies beyond the picture: a model's padding."""
    axis.set_xlim(0, picture.shape[1])
    axis.set_ylim(picture.shape[0], 0)


def tell_apart(number: int) -> np.ndarray:
    """Colours (number, 3); neighbours in the list lie far apart on the wheel."""
    golden = (math.sqrt(5) - 1) / 2
    return colormaps['hsv'](np.arange(number) * golden % 1)[:, :3]

"""Look into a model: what the families declare that there is to see of it, drawn on pages.

Forward hooks keep what a few modules take and give while the model runs on one image; the families
compute maps from that (:mod:`mmdense.families.views`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from ..families import WATCHES
from ..families.views import KINDS, Call, Calls, Query, View, Watch
from ..files import replacing
from ..registry import MODELS

Point = tuple[float, float]  # x, y, as fractions of width and height
COLUMNS = 4  # or 5, where that spares a row for one panel
INCHES = 2.6  # a panel's width
OPACITY = 0.6  # of what lies on the picture


def list_kinds() -> tuple[str, ...]:
    """The kinds of views that some backbone or head has."""
    kinds = dict.fromkeys(watch.kind for watch in WATCHES)
    return tuple(sorted(kinds, key=lambda k: KINDS.index(k) if k in KINDS else len(KINDS)))


def find_watches(model: nn.Module) -> list[tuple[Watch, nn.Module]]:
    """What there is to see of a model: the watches, each with the part it is for."""
    return [
        (watch, part)
        for watch in WATCHES
        for part in model.modules()
        if isinstance(part, MODELS.get(watch.module))
    ]


def run_parts(model: nn.Module, batch: dict) -> None:
    """Run the backbone, and a segmentation head if there is something to see in it, on a batch."""
    features = model.extract_feat(model.data_preprocessor(batch)['inputs'])
    head = getattr(model, 'decode_head', None)
    if head is not None and find_watches(head):
        model.decode_head(features)


@dataclass(frozen=True)
class Recording:
    """What the watched modules of a model took and gave for one image."""

    seen: list[tuple[Watch, nn.Module, Calls]]

    @torch.no_grad()
    def show(self, query: Query) -> dict[str, list[View]]:
        """Views by kind, without kinds that there is nothing of.

        Args:
            query: (x, y), the pixel whose attention is shown.
        """
        views: dict[str, list[View]] = {}
        for watch, part, calls in self.seen:
            views.setdefault(watch.kind, []).extend(
                view.cpu() for view in watch.show(part, calls, query)
            )
        return {kind: found for kind, found in views.items() if found}


@torch.no_grad()
def record(model: nn.Module, run: Callable[[], object], kinds: tuple[str, ...]) -> Recording:
    """Run a model on one image and keep what its views are made of.

    Args:
        model: A classifier, detector, segmentor or backbone.
        run: Takes one image through it.
        kinds: Of :func:`list_kinds`.
    """
    found = [
        (watch, part) for kind in kinds for watch, part in find_watches(model) if watch.kind == kind
    ]
    with ExitStack() as stack:
        calls = [stack.enter_context(watching(part, watch.pattern)) for watch, part in found]
        run()
    return Recording([(watch, part, seen) for (watch, part), seen in zip(found, calls)])


def look(
    model: nn.Module, run: Callable[[], object], query: Query, kinds: tuple[str, ...]
) -> dict[str, list[View]]:
    """Run a model on one image and return what there is to see: :func:`record`, then show."""
    return record(model, run, kinds).show(query)


@contextmanager
def watching(part: nn.Module, pattern: str) -> Iterator[Calls]:
    """Keep the calls of the modules below ``part`` whose names fit, in the order they end."""
    calls: Calls = {}

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, out: object) -> None:
            calls[name] = Call(module, args, out)

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in part.named_modules()
        if re.search(pattern, name)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def find_pixel(point: Point, picture: np.ndarray) -> Query:
    """(x, y) of a point in pixels of what the model saw, (H, W, 3)."""
    height, width = picture.shape[:2]
    return int(point[0] * (width - 1)), int(point[1] * (height - 1))


def name_classes(view: View, classes: Sequence[str]) -> View:
    """A view whose maps of classes have the classes' names; others as they are."""
    return replace(view, labels=tuple(classes)) if view.of_classes else view


def choose_colours(view: View) -> str:
    """Matplotlib's name of a view's colours: a signed one is blue below zero and red above."""
    return 'coolwarm' if view.signed else 'inferno'


def draw_view(picture: np.ndarray, view: View, path: str | Path, max_maps: int) -> None:
    """Write a page: the picture, what sums the view up, and its maps as heat maps.

    Args:
        picture: (H, W, 3) RGB, what the model saw.
        view: Its maps start at the picture's upper left corner and may reach beyond the others.
        path: The file, ``.png`` or what else matplotlib writes.
        max_maps: How many maps at most; of a partition those with the most positions.
    """
    order = np.arange(len(view.maps))
    if view.owners is not None:
        sizes = np.bincount(view.owners.numpy().ravel(), minlength=len(order))
        order = np.argsort(-sizes, kind='stable')
    order = order[:max_maps]
    extra = view.owners is not None or view.colours is not None
    panels = 1 + extra + len(order)
    columns = min(panels, COLUMNS + (panels % COLUMNS == 1))
    rows = math.ceil(panels / columns)
    height = INCHES * picture.shape[0] / picture.shape[1] + 0.3
    figure = Figure(figsize=(columns * INCHES, rows * height), layout='constrained', dpi=100)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()

    panels = iter(axes)
    show_picture(next(panels), picture, name_place(view.name))
    if view.query is not None:
        axes[0].plot(*view.query, 'P', color='red', markersize=9, markeredgecolor='white')
    if view.owners is not None:
        colours = tell_apart(len(sizes))[view.owners.numpy()]
        title = f'partition: {(sizes > 0).sum()} of {len(sizes)}'
        show_colours(next(panels), picture, view, colours, title)
    if view.colours is not None:
        show_colours(next(panels), picture, view, view.colours.numpy(), 'principal components')
    for i in order:
        share = f': {sizes[i] / sizes.sum():.0%}' if view.owners is not None else ''
        show_heat(next(panels), picture, view, i, view.labels[i] + share)
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
    axis.imshow(colours, alpha=OPACITY, extent=extent_of(view, picture), interpolation='nearest')
    cut_to(axis, picture)


def show_heat(axis: Axes, picture: np.ndarray, view: View, index: int, title: str) -> None:
    """One map over the grey picture."""
    show_picture(axis, picture.mean(axis=2), title)
    heat = view.maps[index].numpy()
    limit = np.abs(heat).max() if view.signed else None
    axis.imshow(
        heat,
        cmap=choose_colours(view),
        vmin=-limit if view.signed else None,
        vmax=limit,
        alpha=OPACITY,
        extent=extent_of(view, picture),
        interpolation='bilinear',
    )
    cut_to(axis, picture)


def extent_of(view: View, picture: np.ndarray) -> tuple[int, int, int, int]:
    """Left, right, lower and upper end of a view's maps, in pixels of the picture."""
    height, width = view.maps.shape[1:]
    stride = find_stride(view, picture)
    return 0, width * stride, height * stride, 0


def find_stride(view: View, picture: np.ndarray) -> int:
    """Pixels of the picture per position of the view."""
    return view.stride or 2 ** math.ceil(math.log2(picture.shape[0] / view.maps.shape[1]))


def cut_to(axis: Axes, picture: np.ndarray) -> None:
    """Hide what lies beyond the picture: a model's padding."""
    axis.set_xlim(0, picture.shape[1])
    axis.set_ylim(picture.shape[0], 0)


def tell_apart(number: int) -> np.ndarray:
    """Colours (number, 3); neighbours in the list lie far apart on the wheel."""
    golden = (math.sqrt(5) - 1) / 2
    return colormaps['hsv'](np.arange(number) * golden % 1)[:, :3]

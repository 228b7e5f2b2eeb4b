"""The curves of what trainings logged."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..engine.logs import Run
from ..errors import UserError

MAX_COLUMNS = 4
NONE = -1  # COCO's value of a metric for which there are no objects


def choose_keys(runs: list[Run], wanted: list[str] | None) -> list[str]:
    """The keys to draw: those that are wanted, or the loss and all validation metrics.

    Raises:
        UserError: When no run has one of them.
    """
    metrics = dict.fromkeys(key for run in runs for key in run.metrics)
    known = dict.fromkeys([*(key for run in runs for key in run.train_keys), *metrics])
    filled = [key for key in metrics if any((run.curve(key)[1] != NONE).any() for run in runs)]
    keys = wanted or [key for key in known if key == 'loss' or key in filled]
    unknown = [key for key in keys if key not in known]
    if unknown or not keys:
        raise UserError(f'no {", ".join(unknown) or "loss"} here; there are: {", ".join(known)}')
    return keys


def draw(runs: list[Run], keys: list[str], width: int) -> Figure:
    """A panel for each key, with a curve for each run, smoothed over ``width`` values."""
    columns = min(MAX_COLUMNS, math.ceil(math.sqrt(len(keys))))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(1 + 4 * columns, 0.7 + 3 * rows), layout='constrained', dpi=120)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    for panel, key in zip(panels, keys):
        for number, run in enumerate(runs):
            draw_curve(panel, run, key, width, f'C{number}')
        units = {run.unit(key) for run in runs if key in (*run.train_keys, *run.metrics)}
        panel.set_xlabel(' or '.join(sorted(units)))
        panel.set_ylabel(key)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        panel.grid(alpha=0.3)
    lines = [Line2D([], [], color=f'C{number}', label=run.name) for number, run in enumerate(runs)]
    figure.legend(handles=lines, loc='outside upper center', ncols=columns)
    return figure


def draw_curve(panel: Axes, run: Run, key: str, width: int, colour: str) -> None:
    """A curve; when it is smoothed, the values themselves stay as a pale line."""
    steps, values = run.curve(key)
    is_metric = key in run.metrics
    if width > 1 and len(values) and not is_metric and not key.endswith('lr'):
        panel.plot(steps, values, color=colour, alpha=0.25)
        values = smooth(values, width)
    marker = 'o' if is_metric or len(steps) == 1 else ''
    panel.plot(steps, values, color=colour, marker=marker, markersize=4)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the ``width`` values around each; at the ends, of those that there are."""
    sums, counts = (np.convolve(x, np.ones(width)) for x in (values, np.ones(len(values))))
    return (sums / counts)[width // 2 :][: len(values)]

"""Figures of pages: confusion matrices, reliability diagrams, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .measures import BINS

MAX_NUMBERS = 15  # classes up to which cells of a matrix have numbers
MAX_NAMES = 60  # and up to which its rows have names
MAX_CURVES = 12  # in a legend
MAX_LETTERS = 20  # of a name


def shorten(name: str) -> str:
    """A name that fits beside a figure."""
    return name if len(name) <= MAX_LETTERS else f'{name[: MAX_LETTERS - 1]}…'


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts (C, C) as shares of their row: of each truth, what it was taken for.

    Args:
        matrix: A row for each truth, a column for each prediction.
        names: Of the classes.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2 + 0.42 * len(names), 4.5, 10))
    figure = Figure(figsize=(side + 0.8, side), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
    figure.colorbar(image, ax=axes, label='share of the truth', shrink=0.7)
    axes.set_xlabel('predicted')
    axes.set_ylabel('truth')
    if len(names) <= MAX_NAMES:
        size = 9 if len(names) <= 2 * MAX_NUMBERS else 6
        axes.set_xticks(range(len(names)), map(shorten, names), fontsize=size)
        axes.tick_params('x', rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), map(shorten, names), fontsize=size)
    if len(names) <= MAX_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = 'white' if share > 0.5 else 'black'
                text = f'{100 * share:.0f}'
                axes.text(column, row, text, ha='center', va='center', color=colour, fontsize=8)
    return figure


def draw_reliability(bins: np.ndarray, right: str, counted: str) -> Figure:
    """How often scores are right, and how many there are of each size.

    Args:
        bins: (3, BINS) of :func:`mmdense.reporting.measures.bin_scores`.
        right: What the share of those that are right is called.
        counted: What has a score.
    """
    count, score, is_right = bins
    filled = count > 0
    middles, width = (np.arange(BINS) + 0.5) / BINS, 0.9 / BINS
    shares = np.divide(is_right, count, where=filled, out=np.zeros(BINS))
    means = np.divide(score, count, where=filled, out=np.zeros(BINS))
    figure = Figure(figsize=(4.8, 5), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middles, shares, width, color='C0', alpha=0.8)
    upper.plot([0, 1], [0, 1], '--', color='grey', linewidth=1, label='calibrated')
    dots = dict(color='C1', label='mean score of a bar', clip_on=False, zorder=3)
    upper.plot(means[filled], shares[filled], 'o', **dots)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel=right)
    upper.legend(loc='upper left', fontsize=8)
    lower.bar(middles, count, width, color='C0', alpha=0.8)
    lower.set(xlabel='score', ylabel=counted)
    if count.max() > 100 * max(count[filled].min(initial=1), 1):
        lower.set_yscale('log')
    lower.yaxis.set_major_formatter('{x:,.0f}')
    return figure


def draw_precision_recall(
    recalls: np.ndarray, means: Mapping[str, np.ndarray], by_class: Mapping[str, np.ndarray]
) -> Figure:
    """Precision over recall: means of all classes in bold, each class in a pale line.

    Args:
        recalls: (R,)
        means: (R,) by what they are called.
        by_class: (R,) by the class's name; in the legend while they are few.
    """
    figure = Figure(figsize=(6.5, 4.5), layout='constrained')
    axes = figure.subplots()
    for style, (name, curve) in zip(('-', '--', ':'), means.items()):
        axes.plot(recalls, curve, style, color='black', linewidth=2, label=name, zorder=3)
    few = len(by_class) <= MAX_CURVES
    for number, (name, curve) in enumerate(by_class.items()):
        style = dict(color=f'C{number % 10}', label=shorten(name)) if few else dict(color='C0')
        axes.plot(recalls, curve, linewidth=0.9, alpha=0.6 if few else 0.15, **style)
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right upper', fontsize=8)
    return figure

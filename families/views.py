"""What there is to see of a model: maps over the image, and what the families' views share.

A family says which modules to watch; forward hooks keep what those take and give while the model
runs on one image (:func:`mmdense.inference.visualize.look`), and the family computes the maps from
that afterwards, by the equations in the model's file. The models know nothing of it.

Axis legend: a batch of 1, N = H*W tokens, C channels, h heads, d head dim, K maps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

NUM_CHANNELS = 5  # of a feature map that are shown one by one
# The order in which kinds are shown; others follow.
KINDS = ('clusters', 'attention', 'similarity', 'proxies', 'displacement', 'features')


@dataclass(frozen=True)
class View:
    """Maps over the image.

    Args:
        name: Where in the model they come from, e.g. ``'stage1_block1'``.
        maps: (K, H, W).
        labels: K of them.
        stride: Pixels of the image per position; None for the power of two that fits.
        signed: Zero is the middle: maps tell more from less, rather than how much.
        owners: (H, W), the map that each position belongs to, of a partition.
        colours: (H, W, 3) in [0, 1], a summary of channels that are too many to show.
        query: (x, y), the pixel of the image that asks, of attention.
        of_classes: Each map is of one of the model's classes, in their order.
    """

    name: str
    maps: Tensor
    labels: tuple[str, ...]
    stride: int | None
    signed: bool = False
    owners: Tensor | None = None
    colours: Tensor | None = None
    query: tuple[int, int] | None = None
    of_classes: bool = False

    def cpu(self) -> View:
        """The same with float32 tensors on the CPU."""
        colours = None if self.colours is None else self.colours.float().cpu()
        owners = None if self.owners is None else self.owners.cpu()
        return replace(self, maps=self.maps.float().cpu(), colours=colours, owners=owners)


class Call(NamedTuple):
    """A module, what it took and what it gave."""

    module: nn.Module
    args: tuple
    out: object


Calls = dict[str, Call]  # by the module's name below the backbone or head
Query = tuple[int, int]


@dataclass(frozen=True)
class Watch:
    """One kind of view of one class.

    Args:
        kind: The tools' word for it, e.g. ``'clusters'``.
        module: The registered name of the backbone or head, e.g. ``'mmdense.PaCaViT'``.
        pattern: Of the names of the modules below it whose calls are kept.
        show: Makes views of the module, its calls and the pixel that asks.
    """

    kind: str
    module: str
    pattern: str
    show: Callable[[nn.Module, Calls, Query], Iterator[View]]


def place(name: str) -> str:
    """'stages.0.blocks.1.attn' -> 'stage1_block2'."""
    words = re.findall(r'(stage|block|layer|mixer)s?\.(\d+)', name)
    return '_'.join(f'{word}{int(number) + 1}' for word, number in words)


def stride_of(backbone: nn.Module, name: str) -> int:
    """Pixels of the image per position of the maps of a module below a backbone."""
    return next(
        info['reduction']
        for info in backbone.feature_info
        if f'{name}.'.startswith(f'{info["module"]}.')
    )


def number(word: str, maps: Tensor) -> tuple[str, ...]:
    """'head 1', 'head 2', ..., one per map."""
    return tuple(f'{word} {i + 1}' for i in range(len(maps)))


def token_at(query: Query, stride: int, size: tuple[int, int]) -> int:
    """The token n that a pixel (x, y) lies in."""
    column, row = (min(pixel // stride, side - 1) for pixel, side in zip(query, size[::-1]))
    return row * size[1] + column


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(1, L, C) -> (h, L, d)."""
    return tokens[0].unflatten(1, (num_heads, -1)).transpose(0, 1)


def pyramid_features(backbone: nn.Module, calls: Calls, query: Query) -> Iterator[View]:
    """The map of each stage, before a norm that belongs to the output alone."""
    for name, call in calls.items():
        yield summarize(place(name), call.out[0], stride_of(backbone, name))


def output_features(backbone: nn.Module, calls: Calls, query: Query) -> Iterator[View]:
    """The maps that a backbone returns, called by their places among those that it could."""
    for call in calls.values():
        for i, feature in zip(backbone.out_indices, call.out):
            yield summarize(f'stage{i + 1}', feature[0], backbone.feature_info[i]['reduction'])


def summarize(name: str, feature: Tensor, stride: int) -> View:
    """A feature map (C, H, W): three principal components as colours, its strength, some channels.

    The channels are those of largest variance.
    """
    strength = feature.square().mean(dim=0).sqrt()
    tokens = feature.flatten(1).T  # (N, C)
    tokens = tokens - tokens.mean(dim=0)
    vectors = torch.linalg.eigh(tokens.T @ tokens).eigenvectors[:, -3:].flip(1)
    vectors = vectors * vectors.sum(dim=0).sign()  # a component's sign is arbitrary, so fixed
    components = tokens @ vectors
    low, high = components.quantile(0.02, dim=0), components.quantile(0.98, dim=0)
    colours = ((components - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    channels = tokens.square().sum(dim=0).topk(min(NUM_CHANNELS, len(feature))).indices.sort()[0]
    return View(
        name,
        torch.cat([strength[None], feature[channels]]),
        ('strength', *(f'channel {i + 1}' for i in channels.tolist())),
        stride,
        colours=colours.unflatten(0, feature.shape[1:]),
    )

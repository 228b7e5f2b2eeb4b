"""What the papers show of their models: clusters, attention, similarity, displacement, features.

Forward hooks keep what a few modules take and give while a model runs on one image; the maps are
computed from that afterwards, by the equations in each model's file. The models know nothing of it.

Axis legend: a batch of 1, N = H*W tokens, M clusters, C channels, h heads, d head dim, K maps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .groupmixformer import NUM_HEADS, WINDOWS
from .layers import to_map, to_tokens

STEM_STRIDE = 4  # of the pyramids; every further stage halves the size
NUM_CHANNELS = 5  # of a feature map that are shown one by one


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
    """

    name: str
    maps: Tensor
    labels: tuple[str, ...]
    stride: int | None
    signed: bool = False
    owners: Tensor | None = None
    colours: Tensor | None = None
    query: tuple[int, int] | None = None

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


def look(
    model: nn.Module, run: Callable[[], object], query: Query, kinds: tuple[str, ...]
) -> dict[str, list[View]]:
    """Run a model on one image and return what there is to see.

    Args:
        model: A classifier, detector, segmentor or backbone.
        run: Takes one image through it.
        query: (x, y), the pixel whose attention is shown.
        kinds: Of ``KINDS``.

    Returns:
        Views by kind, without kinds that this model does not have.
    """
    looks = [
        (kind, KINDS[kind][type(part).__name__], part)
        for kind in kinds
        for part in model.modules()
        if type(part).__name__ in KINDS[kind]
    ]
    with ExitStack() as stack, torch.no_grad():
        calls = [stack.enter_context(watching(part, pattern)) for _, (pattern, _), part in looks]
        run()
        views = {}
        for (kind, (_, view), _), seen in zip(looks, calls):
            views.setdefault(kind, []).extend(v.cpu() for v in view(seen, query))
    return {kind: found for kind, found in views.items() if found}


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


def place(name: str) -> str:
    """'stages.0.blocks.1.attn' -> 'stage1_block2'."""
    words = re.findall(r'(stage|block|layer|mixer)s?\.(\d+)', name)
    return '_'.join(f'{word}{int(number) + 1}' for word, number in words)


def stride_of(name: str) -> int:
    """Of the stage that a module of a pyramid belongs to."""
    return STEM_STRIDE << int(re.search(r'stages\.(\d+)', name)[1])


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


def paca_clusters(calls: Calls, query: Query) -> Iterator[View]:
    """Z of each block that does not use an earlier block's, each cluster a distribution over N.

    A position belongs to the cluster in which it weighs most.
    """
    before = None
    for name, call in calls.items():
        size, assignment = call.args[1], call.out[1]
        if assignment is None or assignment is before:
            continue
        before = assignment
        maps = assignment[0].unflatten(1, size)
        labels = number('cluster', maps)
        yield View(place(name), maps, labels, stride_of(name), owners=maps.argmax(dim=0))


def head_clusters(calls: Calls, query: Query) -> Iterator[View]:
    """Z of the segmentation head, whose clusters are the classes.

    A position belongs to the class of its largest logit, as in training: Z is smaller for classes
    that fill more of the image.
    """
    for call in calls.values():
        logits = call.out[0]  # (K, H, W)
        maps = logits.flatten(1).softmax(dim=1).view_as(logits)
        yield View('head', maps, number('class', maps), None, owners=logits.argmax(dim=0))


def paca_attention(calls: Calls, query: Query) -> Iterator[View]:
    """How much each position counts for the query: its attention to the clusters, times theirs."""
    for name, call in calls.items():
        if not name.endswith('attn'):
            continue
        size, assignment = call.args[1], call.out[1]
        q, k = (split_heads(calls[f'{name}.{p}'].out, call.module.num_heads) for p in 'qk')
        q = q[:, token_at(query, stride_of(name), size)]
        logits = torch.einsum('hd,hld->hl', q, k) * q.shape[1] ** -0.5
        if call.module.num_clusters:
            weights = logits.softmax(dim=1) @ assignment[0]  # (h, M) -> (h, N)
        else:
            valid = call.args[3]  # (1, 1, N), of padded images, or None
            hidden = ~valid[0] if valid is not None else torch.zeros_like(logits, dtype=torch.bool)
            weights = logits.masked_fill(hidden, float('-inf')).softmax(dim=1)
        maps = weights.unflatten(1, size)
        yield View(place(name), maps, number('head', maps), stride_of(name), query=query)


def groupmix_segments(calls: Calls) -> Iterator[tuple[str, list[Tensor]]]:
    """The block's name, and q, k, v (3, S, H, W) of its four segments that attend."""
    blocks: dict[str, list[Tensor]] = {}
    for name, call in calls.items():
        blocks.setdefault(name.split('.attn')[0], []).append(call.out)
    yield from blocks.items()


def groupmix_proxies(calls: Calls, query: Query) -> Iterator[View]:
    """Strength (root mean square over channels) of the group proxies, per window."""
    for name, segments in groupmix_segments(calls):
        maps = torch.cat([segment.square().mean(dim=1).sqrt() for segment in segments])
        labels = tuple(f'{part}, window {w}' for w in (1, *WINDOWS) for part in 'qkv')
        yield View(place(name), maps, labels, stride_of(name))


def groupmix_attention(calls: Calls, query: Query) -> Iterator[View]:
    """q_n softmax_N(k)^T per head, which need not be positive; two heads per window."""
    for name, segments in groupmix_segments(calls):
        size = segments[0].shape[2:]
        q, k, _ = torch.cat(segments, dim=1)  # (3, 4S, H, W)
        q, k = (split_heads(to_tokens(t[None]), NUM_HEADS) for t in (q, k))
        q = q[:, token_at(query, stride_of(name), size)]
        maps = torch.einsum('hd,hnd->hn', q, k.softmax(dim=1)).unflatten(1, size)
        windows = [w for w in (1, *WINDOWS) for _ in range(NUM_HEADS // len(segments))]
        labels = tuple(f'head {i + 1}, window {w}' for i, w in enumerate(windows))
        yield View(place(name), maps, labels, stride_of(name), signed=True, query=query)


def fcvit_similarity(calls: Calls, query: Query) -> Iterator[View]:
    """Standardized similarity of each position to the image's mean, per head."""
    for name, (context, (x,), _) in calls.items():
        if not getattr(context, 'weighted', False):
            continue
        heads = to_tokens(x).unflatten(2, (context.num_heads, -1))  # (1, N, h, d)
        similarity = context.get_similarity(heads, heads.mean(dim=1))
        maps = similarity[0].T.unflatten(1, x.shape[2:])
        yield View(place(name), maps, number('head', maps), stride_of(name), signed=True)


def msf_layers(calls: Calls) -> Iterator[tuple[str, Call, tuple[int, int], int]]:
    """The calls of a plain transformer's layers or their parts: name, call, map size, stride."""
    stem = calls['patch_embed']
    for name, call in calls.items():
        if name != 'patch_embed':
            yield name, call, stem.out[1], stem.module.patch_size


def msf_attention(calls: Calls, query: Query) -> Iterator[View]:
    """w_nj of the query's token n, per head: of its distances for mean shift."""
    for name, call, size, stride in msf_layers(calls):
        if name.endswith('qkv'):
            continue
        parts = calls[f'{name}.qkv'].out.unflatten(2, (call.module.num_parts, -1))
        q, k = (split_heads(parts[:, :, i], call.module.num_heads) for i in (0, 1))
        q = q[:, token_at(query, stride, size)]
        logits = torch.einsum('hd,hnd->hn', q, k)
        if call.module.num_parts == 4:
            logits = logits - 0.5 * k.square().sum(dim=2)
        maps = (logits * q.shape[1] ** -0.5).softmax(dim=1).unflatten(1, size)
        yield View(place(name), maps, number('head', maps), stride, query=query)


def msf_displacement(calls: Calls, query: Query) -> Iterator[View]:
    """|y_n|, how far the mean shift moves each token, per head: what enters the last projection."""
    for name, call, size, stride in msf_layers(calls):
        if name.endswith('proj'):
            continue
        if call.module.num_parts != 4:
            continue
        moved = split_heads(calls[f'{name}.proj'].args[0], call.module.num_heads)
        maps = moved.norm(dim=2).unflatten(1, size)
        yield View(place(name), maps, number('head', maps), stride)


def pyramid_features(calls: Calls, query: Query) -> Iterator[View]:
    """The map of each stage, before a norm that belongs to the output alone (FCViT's)."""
    for name, call in calls.items():
        yield summarize(place(name), call.out[0], stride_of(name))


def msf_features(calls: Calls, query: Query) -> Iterator[View]:
    """The tokens of each layer, as maps."""
    for name, call, size, stride in msf_layers(calls):
        yield summarize(place(name), to_map(call.out, size)[0], stride)


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


# kind -> class -> the modules to watch, and what makes views of their calls
KINDS: dict[str, dict[str, tuple[str, Callable[[Calls, Query], Iterator[View]]]]] = {
    'clusters': {
        'PaCaViT': (r'blocks\.\d+\.attn$', paca_clusters),
        'PaCaSegHead': (r'^clustering$', head_clusters),
    },
    'attention': {
        'PaCaViT': (r'blocks\.\d+\.attn(\.[qk])?$', paca_attention),
        'GroupMixFormer': (r'aggregator\.segments\.\d+$', groupmix_attention),
        'MSFViT': (r'^patch_embed$|^layers\.\d+\.attn(\.qkv)?$', msf_attention),
    },
    'similarity': {'FCViT': (r'\.context$', fcvit_similarity)},
    'proxies': {'GroupMixFormer': (r'aggregator\.segments\.\d+$', groupmix_proxies)},
    'displacement': {'MSFViT': (r'^patch_embed$|^layers\.\d+\.attn(\.proj)?$', msf_displacement)},
    'features': {
        'PaCaViT': (r'^stages\.\d+$', pyramid_features),
        'GroupMixFormer': (r'^stages\.\d+$', pyramid_features),
        'FCViT': (r'^stages\.\d+$', pyramid_features),
        'MSFViT': (r'^patch_embed$|^layers\.\d+$', msf_features),
    },
}

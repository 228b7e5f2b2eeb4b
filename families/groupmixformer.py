"""GroupMixFormer: published names and figures, and what there is to see.

The authors' files: shared folders linked from github.com/AILab-CVC/GroupMixFormer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..backbones import GroupMixFormer
from ..backbones.groupmixformer import NUM_HEADS, WINDOWS
from ..backbones.layers import to_tokens
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .shapes import count_blocks, find_ratios, read_sizes
from .views import (
    Calls,
    Query,
    View,
    Watch,
    place,
    pyramid_features,
    split_heads,
    stride_of,
    token_at,
)


def published_names(state: State) -> Names:
    names = [
        ('^conv_stem.proj1.', 'stem.0.'),
        ('^conv_stem.norm1.', 'stem.1.'),
        ('^conv_stem.proj2.', 'stem.3.'),
        ('^conv_stem.norm2.', 'stem.4.'),
        ('^patch_embed_layers.{}.proj.conv1.', 'stages.{}.downsample.0.0.'),
        ('^patch_embed_layers.{}.proj.pointwise_conv.', 'stages.{}.downsample.0.1.'),
        ('^patch_embed_layers.{}.norm.', 'stages.{}.downsample.1.'),
        ('^groupmixformer_backbone.{}.gma_stage.{}.', 'stages.{}.blocks.{}.'),
        ('.cpe.proj.', '.cpe.'),
        ('.att.', '.attn.'),
        ('.aggregator.agg0.conv.conv1.', '.aggregator.local_conv.0.'),
        ('.aggregator.agg0.conv.pointwise_conv.', '.aggregator.local_conv.1.'),
        ('.aggregator.agg0.norm.', '.aggregator.local_norm.'),
        ('.aggregator.norm0.', '.aggregator.segments.0.0.'),
    ]
    for i in (1, 2, 3):
        names += [
            (f'.aggregator.agg{i}.conv1.', f'.aggregator.segments.{i}.0.0.'),
            (f'.aggregator.agg{i}.pointwise_conv.', f'.aggregator.segments.{i}.0.1.'),
            (f'.aggregator.norm{i}.', f'.aggregator.segments.{i}.1.'),
        ]
    return [
        *names,
        ('.crpe.conv_list.{}.', '.position.convs.{}.'),
        ('^norm4.', 'norm.'),
        ('^head.', 'head.fc.'),
    ]


def read_options(state: State) -> dict:
    """Everything; heads and segments are the same in every network."""
    depths = count_blocks(state)
    dims = read_sizes(state, 'stages.{}.downsample.1.weight', len(depths))
    hidden = read_sizes(state, 'stages.{}.blocks.0.mlp.fc1.weight', len(depths))
    return dict(
        arch=dict(embed_dims=dims, depths=depths, mlp_ratios=find_ratios(hidden, dims)),
        in_channels=state['stem.0.weight'].shape[1],
        final_norm='norm.weight' in state,
    )


def find_segments(calls: Calls) -> Iterator[tuple[str, list[Tensor]]]:
    """The block's name, and q, k, v (3, S, H, W) of its four segments that attend."""
    blocks: dict[str, list[Tensor]] = {}
    for name, call in calls.items():
        blocks.setdefault(name.split('.attn')[0], []).append(call.out)
    yield from blocks.items()


def show_proxies(backbone: GroupMixFormer, calls: Calls, query: Query) -> Iterator[View]:
    """Strength (root mean square over channels) of the group proxies, per window."""
    for name, segments in find_segments(calls):
        maps = torch.cat([segment.square().mean(dim=1).sqrt() for segment in segments])
        labels = tuple(f'{part}, window {w}' for w in (1, *WINDOWS) for part in 'qkv')
        yield View(place(name), maps, labels, stride_of(backbone, name))


def show_attention(backbone: GroupMixFormer, calls: Calls, query: Query) -> Iterator[View]:
    """q_n softmax_N(k)^T per head, which need not be positive; two heads per window."""
    for name, segments in find_segments(calls):
        size = segments[0].shape[2:]
        q, k, _ = torch.cat(segments, dim=1)  # (3, 4S, H, W)
        q, k = (split_heads(to_tokens(t[None]), NUM_HEADS) for t in (q, k))
        q = q[:, token_at(query, stride_of(backbone, name), size)]
        maps = torch.einsum('hd,hnd->hn', q, k.softmax(dim=1)).unflatten(1, size)
        windows = [w for w in (1, *WINDOWS) for _ in range(NUM_HEADS // len(segments))]
        labels = tuple(f'head {i + 1}, window {w}' for i, w in enumerate(windows))
        yield View(place(name), maps, labels, stride_of(backbone, name), signed=True, query=query)


def count(totals: Totals) -> Published:
    """On top of MACs, 5 per element of a LayerNorm and 2 per element of a batch norm."""
    flops = totals.macs + 5 * totals.layer_norm + 2 * totals.batch_norm
    return Published(totals.params / 1e6, flops / 1e9)


FAMILY = Family(
    name='groupmixformer',
    backbone=GroupMixFormer,
    variants={
        'groupmixformer_miny': Variant('groupmixformer_m_in1k', 0.875),
        'groupmixformer_tiny': Variant('groupmixformer_t_in1k', 0.875),
        'groupmixformer_small': Variant('groupmixformer_s_in1k', 0.875),
        'groupmixformer_base': Variant('groupmixformer_b_in1k', 0.875),
        'groupmixformer_large': Variant('groupmixformer_l_in1k', 0.875),
    },
    naming=Naming(r'groupmixformer_backbone\.', published_names),
    read_options=read_options,
    watches=(
        Watch('attention', 'mmdense.GroupMixFormer', r'aggregator\.segments\.\d+$', show_attention),
        Watch('proxies', 'mmdense.GroupMixFormer', r'aggregator\.segments\.\d+$', show_proxies),
        Watch('features', 'mmdense.GroupMixFormer', r'^stages\.\d+$', pyramid_features),
    ),
    count=count,
    first_conv='stem.0',
    dense=dict(out_indices=(0, 1, 2, 3), final_norm=False),
    tiny={
        'GroupMixFormer': dict(
            arch=dict(embed_dims=(40, 40, 80, 80), depths=(1, 2, 1, 1), mlp_ratios=(4, 4, 2, 2))
        ),
    },
)

"""MSF: published names and figures, and what there is to see.

The author (github.com/tk1980/MSFtransformer) published no weights; the names are those that the
released training code saves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch

from ..backbones import MSFViT
from ..backbones.layers import to_map
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .shapes import count_modules
from .views import (
    Call,
    Calls,
    Query,
    View,
    Watch,
    number,
    place,
    split_heads,
    stride_of,
    summarize,
    token_at,
)


def published_names(state: State) -> Names:
    rows = {k: len(v) for k, v in state.items() if re.search(r'layers\.0\..*(qkv|proj)\.', k)}
    is_msf = any('to_qkvp' in key for key in state) or (
        rows.get('layers.0.attn.qkv.weight') == 4 * rows.get('layers.0.attn.proj.weight', 0)
    )
    layer = 'transformer.layers.{}'
    return [
        ('^to_patch_embedding.1.', 'patch_embed.norm1.'),
        ('^to_patch_embedding.2.', 'patch_embed.proj.'),
        ('^to_patch_embedding.3.', 'patch_embed.norm2.'),
        (f'^{layer}.0.norm.', 'layers.{}.norm1.'),
        (f'^{layer}.0.to_qkv{"p" if is_msf else ""}.', 'layers.{}.attn.qkv.'),
        (f'^{layer}.0.to_out.', 'layers.{}.attn.proj.'),
        (f'^{layer}.1.net.0.', 'layers.{}.norm2.'),
        (f'^{layer}.1.net.1.', 'layers.{}.mlp.fc1.'),
        (f'^{layer}.1.net.3.', 'layers.{}.mlp.fc2.'),
        ('^linear_head.0.', 'norm.'),
        ('^linear_head.1.', 'head.fc.'),
    ]


def read_options(state: State) -> dict:
    """Heads have 64 channels, as SimpleViT's; the order of groups is the published one."""
    dim, pixels = state['patch_embed.proj.weight'].shape
    rows, columns = state['layers.0.attn.qkv.weight'].shape
    return dict(
        arch=dict(
            embed_dims=dim,
            num_layers=count_modules(state, 'layers'),
            num_heads=max(dim // 64, 1),
            feedforward_channels=len(state['layers.0.mlp.fc1.weight']),
        ),
        patch_size=math.isqrt(pixels // 3),
        attention='msf' if rows == 4 * dim else 'orig',
        groups=dim // columns,
        out_type='avg_featmap' if 'norm.weight' in state else 'featmap',
    )


def find_layers(backbone: MSFViT, calls: Calls) -> Iterator[tuple[str, Call, tuple[int, int], int]]:
    """The calls of the layers or their parts: name, call, (height, width) in tokens, stride."""
    _, size = calls['patch_embed'].out
    for name, call in calls.items():
        if name != 'patch_embed':
            yield name, call, size, stride_of(backbone, name)


def show_attention(backbone: MSFViT, calls: Calls, query: Query) -> Iterator[View]:
    """w_nj of the query's token n, per head: of its distances for mean shift."""
    for name, call, size, stride in find_layers(backbone, calls):
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


def show_displacement(backbone: MSFViT, calls: Calls, query: Query) -> Iterator[View]:
    """|y_n|, how far the mean shift moves each token, per head: what enters the last projection."""
    for name, call, size, stride in find_layers(backbone, calls):
        if name.endswith('proj') or call.module.num_parts != 4:
            continue
        moved = split_heads(calls[f'{name}.proj'].args[0], call.module.num_heads)
        maps = moved.norm(dim=2).unflatten(1, size)
        yield View(place(name), maps, number('head', maps), stride)


def show_features(backbone: MSFViT, calls: Calls, query: Query) -> Iterator[View]:
    """The tokens of each layer, as maps."""
    for name, call, size, stride in find_layers(backbone, calls):
        yield summarize(place(name), to_map(call.out, size)[0], stride)


def count(totals: Totals) -> Published:
    """Parameters without vectors: no biases, norms."""
    return Published(totals.matrix_params / 1e6, totals.macs / 1e9)


TINY = dict(
    arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
    out_indices=(0, 1, 2, 3),
)
FAMILY = Family(
    name='msf',
    backbone=MSFViT,
    variants={
        'msf_small': Variant('msf_s_in1k', 1.0),
        'msf_small_g2': Variant('msf_s_g2_in1k', 1.0),
        'msf_small_orig': Variant('msf_s_orig_in1k', 1.0),
        'msf_small_orig_g2': Variant('msf_s_orig_g2_in1k', 1.0),
    },
    naming=Naming(r'transformer\.layers\.', published_names),
    read_options=read_options,
    untold=('num_heads', 'in_channels', 'group_order'),
    watches=(
        Watch(
            'attention',
            'mmdense.MSFViT',
            r'^patch_embed$|^layers\.\d+\.attn(\.qkv)?$',
            show_attention,
        ),
        Watch(
            'displacement',
            'mmdense.MSFViT',
            r'^patch_embed$|^layers\.\d+\.attn(\.proj)?$',
            show_displacement,
        ),
        Watch('features', 'mmdense.MSFViT', r'^patch_embed$|^layers\.\d+$', show_features),
    ),
    count=count,
    pool_size=(1, 1),
    dense=dict(out_indices=(2, 5, 8, 11), out_type='featmap'),
    tiny={
        'MSFViT': TINY,
        'MSFViT-groups': dict(TINY, groups=2),
        'MSFViT-orig': dict(TINY, attention='orig'),
    },
)

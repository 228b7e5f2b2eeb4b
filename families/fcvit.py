"""FCViT: published names and figures, and what there is to see.

The authors' files: shared folders linked from github.com/ma-xu/FCViT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..backbones import FCViT
from ..backbones.layers import to_tokens
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .views import Calls, Query, View, Watch, number, place, pyramid_features, stride_of


def published_names(state: State) -> Names:
    names = []
    for i in range(4):
        downsample = f'network.{2 * i - 1}' if i else 'patch_embed'
        names += [
            (f'^{downsample}.proj.', f'stages.{i}.downsample.0.'),
            (f'^{downsample}.norm.', f'stages.{i}.downsample.1.'),
            (f'^network.{2 * i}.', f'stages.{i}.blocks.'),
        ]
    mixers = 1 + any('token_mixer.dw2.' in key or 'token_mixer.1.dwconv.' in key for key in state)
    for i in range(mixers):
        names += [
            (f'.token_mixer.gc{i + 1}.', f'.token_mixer.{i}.context.'),
            (f'.token_mixer.dw{i + 1}.', f'.token_mixer.{i}.dwconv.'),
            (f'.token_mixer.fc{i + 1}.', f'.token_mixer.{i}.fc.'),
        ]
    if any(re.search(r'\.(gc1|context)\.fc\.', key) for key in state):  # without competition
        names += [('.context.fc.0.', '.context.fc1.'), ('.context.fc.2.', '.context.fc2.')]
    names += [
        ('.context.rescale_weight', '.context.head_weight'),
        ('.context.rescale_bias', '.context.head_bias'),
        ('.token_mixer.spatial_att.spatial_att.', f'.token_mixer.{mixers}.gate.'),
        ('.channel_mixer.channel_att.channelConv1.', '.channel_mixer.attention.convs.0.'),
        ('.channel_mixer.channel_att.channelConv2.', '.channel_mixer.attention.convs.2.'),
        ('.layer_scale_1', '.scale1.weight'),
        ('.layer_scale_2', '.scale2.weight'),
    ]
    if any(key.startswith('head.') for key in state):
        names += [('^norm.', 'norm3.')]
    else:  # dense files: one norm per map, with the number of the module before it
        names += [(f'^norm{2 * i}.', f'norm{i}.') for i in range(4)]
    return [*names, ('^head.', 'head.fc.')]


def show_similarity(backbone: FCViT, calls: Calls, query: Query) -> Iterator[View]:
    """Standardized similarity of each position to the image's mean, per head."""
    for name, (context, (x,), _) in calls.items():
        if not getattr(context, 'weighted', False):
            continue
        heads = to_tokens(x).unflatten(2, (context.num_heads, -1))  # (1, N, h, d)
        similarity = context.get_similarity(heads, heads.mean(dim=1))
        maps = similarity[0].T.unflatten(1, x.shape[2:])
        yield View(place(name), maps, number('head', maps), stride_of(backbone, name), signed=True)


def count(totals: Totals) -> Published:
    """Parameters in units of 2^20."""
    return Published(totals.params / 2**20, totals.macs / 1e9)


ARCH = dict(embed_dims=(16, 24, 32, 40), depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 2, 2))
FAMILY = Family(
    name='fcvit',
    backbone=FCViT,
    variants={
        'fcvit_tiny': Variant('fcvit_tiny_in1k', 0.9),
        'fcvit_b12': Variant('fcvit_b12_in1k', 0.9),
        'fcvit_b24': Variant('fcvit_b24_in1k', 0.95),
        'fcvit_b48': Variant('fcvit_b48_in1k', 0.95),
    },
    naming=Naming(r'network\.\d\.', published_names),
    watches=(
        Watch('similarity', 'mmdense.FCViT', r'\.context$', show_similarity),
        Watch('features', 'mmdense.FCViT', r'^stages\.\d+$', pyramid_features),
    ),
    count=count,
    tiny={
        'FCViT': dict(arch=ARCH, layer_scale=0.5),
        'FCViT-options': dict(
            arch=ARCH,
            compete=False,
            spatial_attention=True,
            channel_attention=True,
            layer_scale=None,
        ),
    },
)

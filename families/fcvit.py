"""FCViT: published names and figures, and what there is to see.

The authors' files: shared folders linked from github.com/ma-xu/FCViT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..backbones import FCViT
from ..backbones.layers import to_tokens
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .shapes import count_blocks, find_ratios, read_sizes
from .views import Calls, Query, View, Watch, number, place, pyramid_features, stride_of

PAPERS_REDUCTION = 8
MAX_REDUCTION = 1024


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


def read_options(state: State) -> dict:
    """Everything; the initial scale of branches that have one is ImageNet's."""
    depths = count_blocks(state)
    dims = read_sizes(state, 'stages.{}.downsample.0.weight', len(depths))
    hidden = read_sizes(state, 'stages.{}.blocks.0.channel_mixer.fc1.weight', len(depths))
    first = 'stages.0.blocks.0.'
    mixer = f'{first}token_mixer.0.'
    has_scale = f'{first}scale1.weight' in state
    options = dict(
        arch=dict(embed_dims=dims, depths=depths, mlp_ratios=find_ratios(hidden, dims)),
        in_channels=state['stages.0.downsample.0.weight'].shape[1],
        out_indices=tuple(i for i in range(len(dims)) if f'norm{i}.weight' in state),
        global_context=f'{mixer}context.fc1.weight' in state,
        num_mixers=len(
            {k for k in state if re.match(rf'{first}token_mixer\.\d+\.dwconv.weight', k)}
        ),
        kernel_size=state[f'{mixer}dwconv.weight'].shape[-1],
        fc_reduction=find_reduction(state, dims),
        spatial_attention=any('.gate.' in key for key in state),
        channel_attention=any('.channel_mixer.attention.' in key for key in state),
        mlp_dwconv=f'{first}channel_mixer.dwconv.weight' in state,
        layer_scale=1e-5 if has_scale else None,
    )
    if options['global_context']:
        inner = state[f'{mixer}context.fc2.weight'].shape[1]
        options.update(
            weighted_context=f'{mixer}context.head_weight' in state,
            compete=len(state[f'{mixer}context.fc1.weight']) != inner,
            context_reduction=dims[0] // inner,
        )
        if options['weighted_context']:
            options['num_heads'] = len(state[f'{mixer}context.head_weight'])
    return options


def find_reduction(state: State, dims: Sequence[int]) -> int:
    """C over the channels of the token mixers' bottleneck; 1 where there is none.

    Raises:
        ValueError: When it is not the same in all stages.
    """
    bottleneck = 'stages.{}.blocks.0.token_mixer.0.fc.0.weight'
    if bottleneck.format(0) not in state:
        return 1
    hidden = read_sizes(state, bottleneck, len(dims))
    for reduction in (PAPERS_REDUCTION, *range(2, MAX_REDUCTION)):  # several may fit small dims
        if all(max(dim // reduction, 16) == h for dim, h in zip(dims, hidden)):
            return reduction
    raise ValueError(f'bottlenecks of {hidden} channels for {dims} have no common reduction')


def show_similarity(backbone: FCViT, calls: Calls, query: Query) -> Iterator[View]:
    """Standardized similarity of each position to the image's mean, per head."""
    for name, (context, (x,), _) in calls.items():
        if not getattr(context, 'weighted', False):
            continue
        tokens = to_tokens(x)
        similarity = context.get_similarity(tokens, tokens.mean(dim=1))
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
    read_options=read_options,
    untold=('layer_scale',),
    watches=(
        Watch('similarity', 'mmdense.FCViT', r'\.context$', show_similarity),
        Watch('features', 'mmdense.FCViT', r'^stages\.\d+$', pyramid_features),
    ),
    count=count,
    first_conv='stages.0.downsample.0',
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

"""PaCa-ViT and its segmentation head: published names and figures, and what there is to see.

The authors' files: the release "pacavit" of github.com/iVMCL/PaCaViT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ..backbones import PaCaViT
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .shapes import count_blocks, count_modules, find_ratios, read_sizes
from .views import (
    Calls,
    Query,
    View,
    Watch,
    number,
    place,
    pyramid_features,
    split_heads,
    stride_of,
    token_at,
)

CLUSTERINGS: dict[str, Names] = {
    'conv': [
        ('.clustering.clustering.0.', '.clustering.dwconv.'),
        ('.clustering.clustering.2.', '.clustering.proj.'),
        ('.clustering.clustering.4.', '.clustering.assign.'),
    ],
    'mlp': [
        ('.clustering.clustering.0.', '.clustering.proj.'),
        ('.clustering.clustering.2.', '.clustering.assign.'),
    ],
    'linear': [('.clustering.clustering.0.', '.clustering.assign.')],
}


def find_clustering(state: State) -> str:
    """Which clustering the names, theirs or ours, belong to."""
    if any(re.search(r'clustering\.(4|dwconv)\.', key) for key in state):
        return 'conv'
    return 'mlp' if any(re.search(r'clustering\.(2|proj)\.', key) for key in state) else 'linear'


def published_names(state: State) -> Names:
    names = [('^patch_embed.', 'stages.0.downsample.')]
    for i in (1, 2, 3):
        names += [
            (f'^transition{i}.proj.', f'stages.{i}.downsample.proj.0.'),
            (f'^transition{i}.norm.', f'stages.{i}.downsample.norm.'),
        ]
    for i in range(4):
        names += [
            (f'^stage{i + 1}.0.pos_embed', f'stages.{i}.pos_embed'),
            (f'^stage{i + 1}.', f'stages.{i}.blocks.'),
            (f'^norm{i + 1}.', f'stages.{i}.norm.'),
            (f'^paca_teacher.block{i + 1}.', f'teacher.blocks.{i}.'),
            (f'^paca_teacher.transition{i + 1}.0.conv.', f'teacher.downsamples.{i}.1.'),
            (f'^paca_teacher.transition{i + 1}.2.', f'teacher.downsamples.{i}.3.'),
            (f'^paca_teacher.lateral{i + 1}.', f'teacher.laterals.{i}.'),
            (f'^paca_teacher.fpn{i + 1}.', f'teacher.fpns.{i}.'),
            (f'^paca_teacher.to_clusters{i + 1}.', f'teacher.assigns.{i}.'),
        ]
    for mixer in ('^teacher.blocks.{}.{}', '^teacher.fpns.{}'):
        ours = mixer.removeprefix('^')
        names += [
            (f'{mixer}.0.fn.', f'{ours}.depthwise.'),
            (f'{mixer}.1.', f'{ours}.pointwise.0.'),
            (f'{mixer}.3.', f'{ours}.pointwise.2.'),
        ]
    return [
        *names,
        ('.norm1_before.', '.norm1.'),
        ('.norm2_before.', '.norm2.'),
        ('.gamma1', '.scale1.weight'),
        ('.gamma2', '.scale2.weight'),
        ('.cluster_pos_enc', '.cluster_pos_embed'),
        ('.mlp.dwconv.dwconv.', '.mlp.dwconv.'),
        *CLUSTERINGS[find_clustering(state)],
        ('^head.', 'head.fc.'),
    ]


def read_options(state: State) -> dict:
    """Heads are as many as the paper's, or as divide the channels; tables are of square images."""
    depths = count_blocks(state)
    stages = range(len(depths))
    dims = read_sizes(state, 'stages.{}.norm.weight', len(depths))
    hidden = read_sizes(state, 'stages.{}.blocks.0.mlp.fc1.weight', len(depths))
    arch = dict(
        embed_dims=dims,
        num_heads=tuple(math.gcd(dim, 2 ** (i + 1)) for i, dim in enumerate(dims)),
        depths=depths,
        mlp_ratios=find_ratios(hidden, dims),
    )
    if any(key.startswith('teacher.') for key in state):
        arch['teacher_depths'] = tuple(count_modules(state, f'teacher.blocks.{i}') for i in stages)
        clusters = read_sizes(state, 'teacher.assigns.{}.weight', len(depths))
    else:
        assign = 'stages.{}.blocks.0.attn.clustering.assign.weight'
        clusters = tuple(len(state.get(assign.format(i), ())) for i in stages)
    first = 'stages.0.blocks.0.'
    after = f'{first}norm1_after.weight' in state
    options = dict(
        arch=arch,
        in_channels=state['stages.0.downsample.proj.0.weight'].shape[1],
        clusters=clusters,
        clustering_interval=find_intervals(state, depths),
        cluster_norm=any('.cluster_norm.' in key for key in state) or not any(clusters),
        cluster_pos_embed=any('.cluster_pos_embed' in key for key in state),
        mlp_dwconv=f'{first}mlp.dwconv.weight' in state,
        post_norm=after and f'{first}norm1.weight' not in state,
        sub_ln=after and f'{first}norm1.weight' in state,
        layer_scale=1e-6 if f'{first}scale1.weight' in state else None,
        pos_embed='stages.0.pos_embed' in state,
    )
    if any(clusters) and 'teacher_depths' not in arch:
        options['clustering'] = find_clustering(state)
        kernel = 'stages.{}.blocks.0.attn.clustering.dwconv.weight'
        kernels = [
            state[kernel.format(i)].shape[-1] if kernel.format(i) in state else 7 for i in stages
        ]
        options['clustering_kernel_size'] = tuple(kernels)
    if options['pos_embed']:
        options['img_size'] = 4 * math.isqrt(state['stages.0.pos_embed'].shape[1])
    return {
        key: value[0] if key.startswith('clustering_') and len(set(value)) == 1 else value
        for key, value in options.items()
    }


def find_intervals(state: State, depths: Sequence[int]) -> tuple[int, ...]:
    """Blocks from one clustering to the next, per stage; 0 for one clustering alone."""
    found = []
    for i in range(len(depths)):
        pattern = rf'stages\.{i}\.blocks\.(\d+)\.attn\.clustering\.assign\.weight'
        matches = [re.fullmatch(pattern, key) for key in state]
        where = sorted(int(match[1]) for match in matches if match)
        found.append(where[1] if len(where) > 1 else 0)
    longest = max(found)  # stages that are too short for it cluster once in any case
    return tuple(longest if depth <= longest else own for own, depth in zip(found, depths))


def reshape(state: State, back: bool) -> State:
    """The original's pointwise convolutions are linear layers here; its blur is a constant."""
    if back:
        for key in [
            k for k in state if k.startswith('paca_teacher.transition') and '.0.conv.' in k
        ]:
            if key.endswith('.weight'):
                row = torch.tensor([1.0, 2.0, 1.0]) / 4
                channels = state[key].shape[1]
                blur = torch.outer(row, row).expand(channels, 1, 3, 3).clone()
                state[key.replace('.conv.weight', '.blur_filter')] = blur
        names = r'to_clusters\d\.weight$'
        if find_clustering(state) == 'conv':
            names += r'|\.clustering\.clustering\.[24]\.weight$'
        return {k: v[..., None, None] if re.search(names, k) else v for k, v in state.items()}
    names = r'\.clustering\.(proj|assign)\.weight$|teacher\.assigns\.\d\.weight$'
    return {
        key: value.flatten(1) if re.search(names, key) else value
        for key, value in state.items()
        if not key.endswith('.blur_filter')
    }


def head_names(state: State) -> Names:
    names = [('^q.0.', 'q.')]
    for layer in 'kv':
        names += [(f'^{layer}.0.', f'{layer}.conv.'), (f'^{layer}.2.', f'{layer}.bn.')]
    return names


def reshape_head(state: State, back: bool) -> State:
    """The original's linear layers are pointwise convolutions here."""
    if back:
        return {
            k: v[..., 0, 0] if k in ('k.0.weight', 'v.0.weight') else v for k, v in state.items()
        }
    names = ('k.conv.weight', 'v.conv.weight')
    return {k: v[..., None, None] if k in names else v for k, v in state.items()}


def show_clusters(backbone: PaCaViT, calls: Calls, query: Query) -> Iterator[View]:
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
        yield View(place(name), maps, labels, stride_of(backbone, name), owners=maps.argmax(dim=0))


def show_classes(head: nn.Module, calls: Calls, query: Query) -> Iterator[View]:
    """Z of the segmentation head, whose clusters are the classes.

    A position belongs to the class of its largest logit, as in training: Z is smaller for classes
    that fill more of the image.
    """
    for call in calls.values():
        logits = call.out[0]  # (K, H, W)
        maps = logits.flatten(1).softmax(dim=1).view_as(logits)
        owners = logits.argmax(dim=0)
        yield View('head', maps, number('class', maps), None, owners=owners, of_classes=True)


def show_attention(backbone: PaCaViT, calls: Calls, query: Query) -> Iterator[View]:
    """How much each position counts for the query: its attention to the clusters, times theirs."""
    for name, call in calls.items():
        if not name.endswith('attn'):
            continue
        size, assignment = call.args[1], call.out[1]
        q, k = (split_heads(calls[f'{name}.{p}'].out, call.module.num_heads) for p in 'qk')
        q = q[:, token_at(query, stride_of(backbone, name), size)]
        logits = torch.einsum('hd,hld->hl', q, k) * q.shape[1] ** -0.5
        if call.module.num_clusters:
            weights = logits.softmax(dim=1) @ assignment[0]  # (h, M) -> (h, N)
        else:
            valid = call.args[3]  # (1, 1, N), of padded images, or None
            hidden = ~valid[0] if valid is not None else torch.zeros_like(logits, dtype=torch.bool)
            weights = logits.masked_fill(hidden, float('-inf')).softmax(dim=1)
        maps = weights.unflatten(1, size)
        yield View(place(name), maps, number('head', maps), stride_of(backbone, name), query=query)


def count(totals: Totals) -> Published:
    """Transposed convolutions at the size of their output."""
    return Published(totals.params / 1e6, (totals.macs + totals.transposed) / 1e9)


ARCH = dict(
    embed_dims=(16, 24, 32, 40),
    num_heads=(2, 2, 4, 4),
    depths=(1, 2, 3, 1),
    mlp_ratios=(4, 4, 2, 2),
)
FAMILY = Family(
    name='paca',
    backbone=PaCaViT,
    variants={
        'paca_tiny': Variant('paca_t_in1k', 0.9),
        'paca_tiny_teacher': Variant('paca_t_teacher_in1k', 0.9),
        'paca_small': Variant('paca_s_in1k', 0.9),
        'paca_small_mlp': Variant('paca_s_mlp_in1k', 0.9),
        'paca_small_teacher': Variant('paca_s_teacher_in1k', 0.9),
        'paca_small_2_0': Variant('paca_s_2_0_in1k', 0.9),
        'paca_small_49_0': Variant('paca_s_49_0_in1k', 0.9),
        'paca_small_49_100': Variant('paca_s_49_100_in1k', 0.9),
        'paca_small_100_49': Variant('paca_s_100_49_in1k', 0.9),
        'paca_small_100': Variant('paca_s_100_in1k', 0.9),
        'paca_small_blockwise': Variant('paca_s_blockwise_in1k', 0.9),
        'paca_base': Variant('paca_b_in1k', 0.9),
        'paca_base_teacher': Variant('paca_b_teacher_in1k', 0.9),
    },
    naming=Naming(r'(stage|paca_teacher\.block)\d\.', published_names, reshape),
    read_options=read_options,
    untold=('num_heads', 'mlp_shortcut', 'layer_scale', 'mask_padding'),
    head_naming=(Naming(r'q\.0\.conv\.', head_names, reshape_head),),
    watches=(
        Watch('clusters', 'mmdense.PaCaViT', r'blocks\.\d+\.attn$', show_clusters),
        Watch('clusters', 'mmdense.PaCaSegHead', r'^clustering$', show_classes),
        Watch('attention', 'mmdense.PaCaViT', r'blocks\.\d+\.attn(\.[qk])?$', show_attention),
        Watch('features', 'mmdense.PaCaViT', r'^stages\.\d+$', pyramid_features),
    ),
    count=count,
    first_conv='stages.0.downsample.proj.0',
    own={
        'detection': 'faster_rcnn_paca_own',
        'instance segmentation': 'mask_rcnn_paca_own',
        'semantic segmentation': 'sem_fpn_paca_own',
        'classification': 'paca_own',
    },
    tiny={
        'PaCaViT': dict(arch=ARCH, clusters=(9, 9, 9, 0)),
        'PaCaViT-teacher': dict(
            arch=dict(ARCH, teacher_depths=(1, 1, 2, 1)), clusters=(9, 9, 9, 9)
        ),
        'PaCaViT-options': dict(
            arch=ARCH,
            clusters=(9, 9, 9, 0),
            clustering='mlp',
            clustering_interval=2,
            cluster_pos_embed=True,
            sub_ln=True,
            layer_scale=0.5,
            pos_embed=True,
            img_size=64,
            mask_padding=True,
        ),
    },
)

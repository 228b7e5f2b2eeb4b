"""The published checkpoints of the four families, in this project's names, and back.

Each family's names are a list of pairs (theirs, ours). ``{}`` stands for a number, ``^`` for the
start of the name; the pairs apply in order, each to what the ones before it left. Read from right
to left, the same pairs give the published names back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor

from .checkpoint import describe_mismatch, find_exempt, find_mismatch
from .errors import UserError

Names = list[tuple[str, str]]
State = dict[str, Tensor]

# Where files keep raw and averaged weights. mmengine swaps the two when it saves: beside an
# 'ema_state_dict', which holds the raw ones, its 'state_dict' is the average.
RAW_ENTRIES = ('ema_state_dict', 'state_dict', 'model')
EMA_ENTRIES = ('state_dict_ema', 'model_ema')

# PaCa-ViT

PACA_CLUSTERINGS: dict[str, Names] = {
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


def paca_clustering(state: State) -> str:
    """Which clustering the names, theirs or ours, belong to."""
    if any(re.search(r'clustering\.(4|dwconv)\.', key) for key in state):
        return 'conv'
    return 'mlp' if any(re.search(r'clustering\.(2|proj)\.', key) for key in state) else 'linear'


def paca_names(state: State) -> Names:
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
        *PACA_CLUSTERINGS[paca_clustering(state)],
        ('^head.', 'head.fc.'),
    ]


def paca_reshape(state: State, back: bool) -> State:
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
        if paca_clustering(state) == 'conv':
            names += r'|\.clustering\.clustering\.[24]\.weight$'
        return {k: v[..., None, None] if re.search(names, k) else v for k, v in state.items()}
    names = r'\.clustering\.(proj|assign)\.weight$|teacher\.assigns\.\d\.weight$'
    return {
        key: value.flatten(1) if re.search(names, key) else value
        for key, value in state.items()
        if not key.endswith('.blur_filter')
    }


# GroupMixFormer


def groupmixformer_names(state: State) -> Names:
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


# FCViT


def fcvit_names(state: State) -> Names:
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


# MSF


def msf_names(state: State) -> Names:
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


# PaCa's head (dense)


def paca_head_names(state: State) -> Names:
    names = [('^q.0.', 'q.')]
    for layer in 'kv':
        names += [(f'^{layer}.0.', f'{layer}.conv.'), (f'^{layer}.2.', f'{layer}.bn.')]
    return names


def paca_head_reshape(state: State, back: bool) -> State:
    """The original's linear layers are pointwise convolutions here."""
    if back:
        return {
            k: v[..., 0, 0] if k in ('k.0.weight', 'v.0.weight') else v for k, v in state.items()
        }
    names = ('k.conv.weight', 'v.conv.weight')
    return {k: v[..., None, None] if k in names else v for k, v in state.items()}


class Family(NamedTuple):
    """How the files of one family are named."""

    configs: str  # folder under configs/
    marker: str  # pattern of names that only its published files have
    names: Callable[[State], Names]
    reshape: Callable[[State, bool], State] = lambda state, back: state

    def owns(self, state: State) -> bool:
        """Whether the names are the published ones."""
        return any(re.match(self.marker, key) for key in state)

    def convert(self, state: State) -> State:
        """Published names and shapes -> this project's, which themselves stay as they are."""
        if not self.owns(state):
            return state
        return self.reshape(rename(state, self.names(state)), False)

    def restore(self, state: State) -> State:
        """This project's names and shapes -> the published ones."""
        pairs = [(ours, theirs) for theirs, ours in reversed(self.names(state))]
        return self.reshape(rename(state, pairs), True)


FAMILIES = (
    Family('paca', r'(stage|paca_teacher\.block)\d\.', paca_names, paca_reshape),
    Family('groupmixformer', r'groupmixformer_backbone\.', groupmixformer_names),
    Family('fcvit', r'network\.\d\.', fcvit_names),
    Family('msf', r'transformer\.layers\.', msf_names),
)
PACA_HEAD = Family('paca', r'q\.0\.conv\.', paca_head_names, paca_head_reshape)


def rename(state: Mapping[str, Tensor], pairs: Names) -> State:
    """The same tensors by their new names."""
    rules = []
    for old, new in pairs:
        start = '^' if old.startswith('^') or new.startswith('^') else ''
        pattern = start + re.escape(old.removeprefix('^')).replace(r'\{\}', r'(\d+)')
        target = new.removeprefix('^')
        for group in range(1, target.count('{}') + 1):
            target = target.replace('{}', rf'\g<{group}>', 1)
        rules.append((re.compile(pattern), target))
    renamed = {}
    for key, value in state.items():
        for pattern, target in rules:
            key = pattern.sub(target, key, count=1)
        if key in renamed:
            raise UserError(f'two tensors would be called {key}: these are no published names')
        renamed[key] = value
    return renamed


class Variant(NamedTuple):
    """A published backbone: its config and its tensors (without data)."""

    config: str  # e.g. 'configs/paca/paca_s_in1k.py'
    backbone: dict
    tensors: State
    may_change_shape: str | None
    may_be_absent: str | None

    def mismatch(self, state: State, dense: bool) -> dict[str, list[str]]:
        """What differs; in dense use some norms may, and clusters may have another number."""
        exempt = set()
        if dense:
            patterns = (self.may_change_shape, self.may_be_absent)
            exempt = find_exempt(self.tensors, state, *patterns)
        own, found = (
            {key: value for key, value in tensors.items() if key not in exempt}
            for tensors in (self.tensors, state)
        )
        return find_mismatch(own, found)


@cache
def published_variants(folder: str) -> tuple[Variant, ...]:
    """The backbones of ``configs/<folder>/*_in1k.py``."""
    variants = []
    for path in sorted((config_root() / folder).glob('*_in1k.py')):
        backbone = Config.fromfile(path).model.backbone.to_dict()
        with torch.device('meta'):
            model = MODELS.build(backbone)
        variants.append(
            Variant(
                f'configs/{folder}/{path.name}',
                backbone,
                model.state_dict(),
                model.may_change_shape,
                model.may_be_absent,
            )
        )
    return tuple(variants)


def config_root() -> Path:
    """The folder ``configs`` of a checkout, or of the installed package."""
    package = Path(__file__).parent.parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package / 'configs'


class Conversion(NamedTuple):
    """What a published state dict is, and what it became."""

    state_dict: State
    variant: Variant
    reshaped: list[str]  # tensors of another shape than the variant's (numbers of clusters)


def pick_weights(checkpoint: Mapping, ema: bool = False) -> State:
    """The tensors of a checkpoint, raw or averaged, without a wrapper's ``module.`` prefix.

    Raises:
        UserError: When it holds no (averaged) weights.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'it holds a {type(checkpoint).__name__}, no dict of tensors')
    held = {str(k): v for k, v in checkpoint.items() if isinstance(v, Mapping)}
    raw = [held[entry] for entry in RAW_ENTRIES if entry in held]
    averaged = [held[entry] for entry in EMA_ENTRIES if entry in held]
    if 'ema_state_dict' in held and 'state_dict' in held:
        averaged.append(held['state_dict'])
    names = ', '.join(str(key) for key in list(checkpoint)[:8])
    if ema and not averaged:
        raise UserError(f'it holds no averaged weights ({", ".join(EMA_ENTRIES)}), but {names}')
    state = {
        key.removeprefix('module.'): value
        for key, value in ((averaged if ema else raw) or [checkpoint])[0].items()
        if isinstance(value, Tensor) and isinstance(key, str) and key not in ('n_averaged', 'steps')
    }
    if not state:
        hint = '; --ema reads the averaged weights' if averaged and not ema else ''
        raise UserError(f'it holds no weights, but {names}{hint}')
    return state


def has_averaged_weights(checkpoint: Mapping) -> bool:
    """Whether :func:`pick_weights` finds other weights with ``ema``."""
    return any(entry in checkpoint for entry in (*EMA_ENTRIES, 'ema_state_dict'))


def convert(state: State) -> Conversion:
    """Find out what a published state dict is, and rename it.

    Args:
        state: As published: a classifier's, or a detector's or segmentor's, whose backbone's names
            start with ``backbone.``.

    Returns:
        With the names of mmpretrain's ``ImageClassifier``, or of the detector or segmentor.

    Raises:
        UserError: When no published variant has these tensors; says which is the nearest.
    """
    dense = any(key.startswith('backbone.') for key in state)
    prefix = 'backbone.' if dense else ''
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    outside = {k: v for k, v in state.items() if not k.startswith(prefix)}

    candidates = []
    for family in [f for f in FAMILIES if f.owns(inside)] or FAMILIES:
        converted = family.convert(inside)
        backbone = {k: v for k, v in converted.items() if not k.startswith('head.')}
        candidates.append((*nearest_variant(family, backbone, dense), converted))
    rank, variant, converted = min(candidates, key=lambda c: c[0])
    backbone = {k: v for k, v in converted.items() if not k.startswith('head.')}
    reshaped = variant.mismatch(backbone, dense=False)['of another shape']
    if rank[0]:
        differs = variant.mismatch(backbone, dense)
        problem = describe_mismatch(differs, len(variant.tensors))
        raise UserError(
            f'the tensors are of no published variant; nearest is {variant.config}: {problem}'
        )
    result = {k if k.startswith('head.') else f'backbone.{k}': v for k, v in converted.items()}
    return Conversion(result | convert_head(outside), variant, reshaped)


def identify(state: State) -> str | None:
    """The config of the published backbone with these tensors, if it is one.

    Args:
        state: A backbone's, in this project's names.
    """
    nearest = [nearest_variant(family, state, dense=True) for family in FAMILIES]
    rank, variant = min(nearest, key=lambda n: n[0])
    return None if rank[0] else Path(variant.config).stem


def nearest_variant(
    family: Family, backbone: State, dense: bool
) -> tuple[tuple[int, int, int], Variant]:
    """The variant that differs in the fewest tensors; of equals the one with the fewest options."""

    def rank(variant: Variant) -> tuple[int, int, int]:
        count = sum(map(len, variant.mismatch(backbone, dense).values()))
        reshaped = variant.mismatch(backbone, dense=False)['of another shape']
        return count, len(reshaped), len(variant.config)

    best = min(published_variants(family.configs), key=rank)
    return rank(best), best


def convert_head(state: State, head: str = 'decode_head.') -> State:
    """What is not the backbone: PaCa's segmentation head is renamed, all else stays as it is."""
    inside = {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)}
    outside = {k: v for k, v in state.items() if not k.startswith(head)}
    return outside | {f'{head}{k}': v for k, v in PACA_HEAD.convert(inside).items()}


def restore(state: State, folder: str) -> State:
    """An ``ImageClassifier`` of this project in the names that its family publishes.

    Args:
        state: Names that start with ``backbone.`` and ``head.``.
        folder: The family: 'paca', 'groupmixformer', 'fcvit' or 'msf'.
    """
    family = next(f for f in FAMILIES if f.configs == folder)
    return family.restore({k.removeprefix('backbone.'): v for k, v in state.items()})

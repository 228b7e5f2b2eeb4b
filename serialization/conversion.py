"""The published checkpoints of all families, in this project's names, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor

from ..errors import UserError
from ..families import FAMILIES, Family
from ..families.naming import State
from ..files import config_root
from .matching import describe_mismatch, find_exempt, find_mismatch

# Where files keep raw and averaged weights. mmengine swaps the two when it saves: beside an
# 'ema_state_dict', which holds the raw ones, its 'state_dict' is the average.
RAW_ENTRIES = ('ema_state_dict', 'state_dict', 'model')
EMA_ENTRIES = ('state_dict_ema', 'model_ema')


class Candidate(NamedTuple):
    """A published backbone: its config and its tensors (without data)."""

    name: str  # the config's, e.g. 'paca_s_in1k'
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
def get_candidates(family: Family) -> tuple[Candidate, ...]:
    """The published backbones of a family."""
    candidates = []
    for name in sorted(variant.config for variant in family.variants.values()):
        backbone = load_variant(family, name).model.backbone.to_dict()
        with torch.device('meta'):
            model = MODELS.build(backbone)
        path = f'configs/{family.name}/{name}.py'
        patterns = (model.may_change_shape, model.may_be_absent)
        candidates.append(Candidate(name, path, backbone, model.state_dict(), *patterns))
    return tuple(candidates)


def load_variant(family: Family, name: str) -> Config:
    """The config of a published variant."""
    return Config.fromfile(config_root() / family.name / f'{name}.py')


class Conversion(NamedTuple):
    """What a published state dict is, and what it became."""

    state_dict: State
    variant: Candidate
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
    names = ', '.join(str(key) for key in list(checkpoint)[:8]) or 'nothing'
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
    for family in [f for f in FAMILIES if f.naming.owns(inside)] or FAMILIES:
        converted = family.naming.convert(inside)
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
    return None if rank[0] else variant.name


def nearest_variant(
    family: Family, backbone: State, dense: bool
) -> tuple[tuple[int, int, int], Candidate]:
    """The variant that differs in the fewest tensors; of equals the one with the fewest options."""

    def rank(variant: Candidate) -> tuple[int, int, int]:
        count = sum(map(len, variant.mismatch(backbone, dense).values()))
        reshaped = variant.mismatch(backbone, dense=False)['of another shape']
        return count, len(reshaped), len(variant.config)

    best = min(get_candidates(family), key=rank)
    return rank(best), best


def convert_head(state: State, head: str = 'decode_head.') -> State:
    """What is not the backbone: the families' own heads are renamed, all else stays as it is."""
    inside = {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)}
    outside = {k: v for k, v in state.items() if not k.startswith(head)}
    for naming in (naming for family in FAMILIES for naming in family.head_naming):
        inside = naming.convert(inside)
    return outside | {f'{head}{k}': v for k, v in inside.items()}


def restore(state: State, family: Family) -> State:
    """An ``ImageClassifier`` of this project in the names that its family publishes.

    Args:
        state: Names that start with ``backbone.`` and ``head.``.
        family: Of the backbone.
    """
    return family.naming.restore({k.removeprefix('backbone.'): v for k, v in state.items()})

"""The published checkpoints of all families, in this project's names, and back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
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
HEAD = 'decode_head.'  # where segmentors have it
# What code raises that meets a tensor of another shape than it expects, or none.
SHAPE_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


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
    family: Family
    backbone: dict  # as a config names it
    config: str | None  # of the published variant; None for a network that nobody published
    reshaped: list[str]  # tensors of another shape than that config's (numbers of clusters)


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


def split_prefix(state: State) -> tuple[State, State]:
    """The backbone's tensors by its own names, and those of the rest of a detector or segmentor."""
    prefix = 'backbone.'
    if not any(key.startswith(prefix) for key in state):
        return state, {}
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return inside, {k: v for k, v in state.items() if not k.startswith(prefix)}


def rename(family: Family, inside: State, outside: State) -> tuple[State, State]:
    """A state dict of a family in this project's names: the backbone alone, and the whole.

    Raises:
        UserError: When the names are its authors', and the shapes are not.
    """
    try:
        renamed = family.naming.convert(inside)
    except UserError:
        raise
    except SHAPE_ERRORS as error:
        name = family.backbone.__name__
        raise UserError(f'its tensors have the names of a {name}, and not its shapes') from error
    backbone = {k: v for k, v in renamed.items() if not k.startswith('head.')}
    whole = {k if k.startswith('head.') else f'backbone.{k}': v for k, v in renamed.items()}
    return backbone, whole | convert_head(outside)


def convert(state: State) -> Conversion:
    """Find out what a published state dict is, and rename it.

    Args:
        state: As published: a classifier's, or a detector's or segmentor's, whose backbone's names
            start with ``backbone.``.

    Returns:
        With the names of mmpretrain's ``ImageClassifier``, or of the detector or segmentor. A
        network that was not published, but that the authors' code can build, has no config.

    Raises:
        UserError: When no network of a family has these tensors; says which variant is the nearest.
    """
    inside, outside = split_prefix(state)
    dense = inside is not state
    families = [f for f in FAMILIES if f.naming.owns(inside)] or FAMILIES
    renamed = [(family, *rename(family, inside, outside)) for family in families]
    nearest = [
        (*nearest_variant(family, own, dense), family, own, whole) for family, own, whole in renamed
    ]
    rank, variant, family, own, whole = min(nearest, key=lambda n: n[0])
    if not rank[0]:
        reshaped = variant.mismatch(own, dense=False)['of another shape']
        return Conversion(whole, family, variant.backbone, variant.config, reshaped)
    for family, backbone, whole in renamed:
        options = find_options(family, backbone)
        if options is not None:
            return Conversion(whole, family, options, None, [])
    problem = describe_mismatch(variant.mismatch(own, dense), len(variant.tensors))
    raise UserError(
        f'the tensors are of no published variant; nearest is {variant.config}: {problem}'
    )


def find_options(family: Family, backbone: State) -> dict | None:
    """The config of the network of a family that has these tensors; None when none has.

    Args:
        family: Whose code may build it.
        backbone: Tensors in this project's names.
    """
    try:
        options = dict(type=family.type, **simplify(family, family.read_options(backbone)))
        with torch.device('meta'):
            model = MODELS.build(options)
    except SHAPE_ERRORS:
        return None
    own = model.state_dict()
    exempt = find_exempt(own, backbone, None, model.may_be_absent)
    own, found = ({k: v for k, v in s.items() if k not in exempt} for s in (own, backbone))
    return None if any(find_mismatch(own, found).values()) else options


def simplify(family: Family, options: dict) -> dict:
    """Options without those that are the backbone's defaults; a published arch by its name."""
    parameters = inspect.signature(family.backbone).parameters
    shown = {k: v for k, v in options.items() if v != parameters[k].default}
    for name, row in family.backbone.arch_zoo.items():
        if shown.get('arch') == row:
            shown['arch'] = name
    return shown


def adopt(content: dict, shown: str) -> dict:
    """A checkpoint in this project's names, when its tensors are what a family's authors save.

    Args:
        content: A checkpoint; any other one is handed back as it is.
        shown: What the file is called, for the log.
    """
    try:
        is_average = 'ema_state_dict' in content  # mmengine's state_dict then is
        inside, outside = split_prefix(pick_weights(content, ema=is_average))
    except UserError:  # it has none
        return content
    for family in FAMILIES:
        if not family.naming.owns(inside):
            continue
        try:
            backbone, whole = rename(family, inside, outside)
        except UserError:
            continue
        if find_options(family, backbone) is None:
            continue
        hint = ''
        if has_averaged_weights(content) and not is_average:
            hint = '; it also has averaged weights, which tools/convert_checkpoint.py --ema takes'
        name = family.backbone.__name__
        print_log(f'{shown} is as the authors of {name} save it: converted{hint}', 'current')
        entries = {*RAW_ENTRIES, *EMA_ENTRIES}
        is_bare = not any(isinstance(content.get(entry), Mapping) for entry in entries)
        rest = {} if is_bare else {k: v for k, v in content.items() if k not in entries}
        return dict(rest, state_dict=whole)
    return content


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


def convert_head(state: State) -> State:
    """What is not the backbone: the families' own heads are renamed, all else stays as it is."""
    inside = {k.removeprefix(HEAD): v for k, v in state.items() if k.startswith(HEAD)}
    outside = {k: v for k, v in state.items() if not k.startswith(HEAD)}
    for naming in (naming for family in FAMILIES for naming in family.head_naming):
        inside = naming.convert(inside)
    return outside | {f'{HEAD}{k}': v for k, v in inside.items()}


def restore(state: State, family: Family) -> State:
    """An ``ImageClassifier`` of this project in the names that its family publishes.

    Args:
        state: Names that start with ``backbone.`` and ``head.``.
        family: Of the backbone.
    """
    return family.naming.restore({k.removeprefix('backbone.'): v for k, v in state.items()})

"""How two sets of tensors differ, by names and shapes, and how that is told in one line."""

from __future__ import annotations

import re
from collections import Counter

import torch
from torch import Tensor

EXAMPLES = 3  # of names that are told


def find_exempt(
    own: dict[str, Tensor],
    found: dict[str, Tensor],
    may_change_shape: str | None,
    may_be_absent: str | None,
) -> set[str]:
    """The names in which ``found`` may differ from ``own``, and does."""

    def resized(a: torch.Size, b: torch.Size) -> bool:  # the channels, which come last, agree
        return a != b and len(a) == len(b) and (len(a) == 1 or a[-1] == b[-1])

    exempt = set()
    if may_change_shape:
        exempt |= {
            key
            for key in own.keys() & found.keys()
            if re.search(may_change_shape, key) and resized(own[key].shape, found[key].shape)
        }
    if may_be_absent:
        exempt |= {key for key in own.keys() ^ found.keys() if re.search(may_be_absent, key)}
    return exempt


def find_mismatch(own: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, list[str]]:
    """What keeps ``found`` from being loaded as ``own``, by kind; empty lists when nothing does."""
    return {
        'missing': [key for key in own if key not in found],
        'unexpected': [key for key in found if key not in own],
        'of another shape': [
            f'{key} {tuple(found[key].shape)} for {tuple(value.shape)}'
            for key, value in own.items()
            if key in found and found[key].shape != value.shape
        ],
    }


def describe_mismatch(mismatch: dict[str, list[str]], total: int) -> str:
    """A mismatch in one line; empty when there is none."""
    parts = []
    for kind, keys in mismatch.items():
        if keys:
            more = ', ...' if len(keys) > EXAMPLES else ''
            parts.append(f'{len(keys)} {kind} ({", ".join(keys[:EXAMPLES])}{more})')
    return f'of {total} tensors, ' + ', '.join(parts) if parts else ''


def describe_prefixes(state: dict[str, Tensor]) -> str:
    """How many tensors lie under each first name, e.g. ``153 backbone.*, 2 head.*``."""
    counts = Counter(key.split('.')[0] for key in state)
    return ', '.join(f'{count} {name}.*' for name, count in counts.most_common(5)) or 'no tensors'

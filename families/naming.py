"""How authors name the tensors of their files: rules that rename, and that rename back.

A family's names are a list of pairs (theirs, ours). ``{}`` stands for a number, ``^`` for the
start of the name; the pairs apply in order, each to what the ones before it left. Read from right
to left, the same pairs give the published names back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import UserError

Names = list[tuple[str, str]]
State = dict[str, Tensor]


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


def keep_shapes(state: State, back: bool) -> State:
    """For files whose tensors have our shapes."""
    return state


@dataclass(frozen=True)
class Naming:
    """The published names of a backbone, or of a head.

    Args:
        marker: Pattern of names that only published files have.
        names: The pairs, for a file whose state dict, in either names, is given.
        reshape: Brings renamed tensors to our shapes, or ours (``back``) to the published ones.
    """

    marker: str
    names: Callable[[State], Names]
    reshape: Callable[[State, bool], State] = keep_shapes

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

"""What the names and shapes of a network's tensors tell of its options."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, takewhile

from .naming import State

# More than any network has; what a file claims beyond that is not counted, nor built.
MAX_STAGES, MAX_BLOCKS = 8, 200


def count_modules(state: State, prefix: str, most: int = MAX_BLOCKS) -> int:
    """How many modules a list has: ``prefix.0``, ``prefix.1``, ... without a gap.

    Raises:
        ValueError: When they are more than ``most``.
    """
    numbers = {
        key.removeprefix(f'{prefix}.').split('.')[0]
        for key in state
        if key.startswith(f'{prefix}.')
    }
    number = len(list(takewhile(lambda i: str(i) in numbers, count())))
    if number > most:
        raise ValueError(f'{number} modules {prefix}.*; the most is {most}')
    return number


def count_blocks(state: State) -> tuple[int, ...]:
    """Blocks per stage, ``stages.{}.blocks.{}``."""
    stages = range(count_modules(state, 'stages', MAX_STAGES))
    return tuple(count_modules(state, f'stages.{i}.blocks') for i in stages)


def read_sizes(state: State, name: str, stages: int, side: int = 0) -> tuple[int, ...]:
    """A side of a tensor of every stage; ``{}`` in its name stands for the stage."""
    return tuple(state[name.format(i)].shape[side] for i in range(stages))


def find_ratios(hidden: Sequence[int], dims: Sequence[int]) -> tuple[float, ...]:
    """Ratios of which ``int(dim * ratio)`` makes the hidden channels again."""
    ratios = (
        h / dim if int(dim * (h / dim)) == h else (h + 0.5) / dim for h, dim in zip(hidden, dims)
    )
    return tuple(int(ratio) if ratio == int(ratio) else ratio for ratio in ratios)

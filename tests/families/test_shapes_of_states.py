"""Options of a network are read from the names and shapes of its tensors."""

import pytest
import torch

from mmdense.families.shapes import (
    MAX_BLOCKS,
    count_blocks,
    count_modules,
    find_ratios,
    read_sizes,
)


def make_state(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(3, 5) for name in names}


def test_modules_are_counted_up_to_a_gap():
    state = make_state('a.0.w', 'a.1.w', 'a.1.b', 'a.3.w', 'ab.2.w', 'x.a.2.w')
    assert count_modules(state, 'a') == 2
    assert count_modules(state, 'b') == 0


def test_more_modules_than_any_network_has():
    state = make_state(*(f'a.{i}.w' for i in range(MAX_BLOCKS + 1)))
    with pytest.raises(ValueError, match=f'{MAX_BLOCKS + 1} modules a'):
        count_modules(state, 'a')
    assert count_modules(make_state(*list(state)[:-1]), 'a') == MAX_BLOCKS


def test_blocks_of_each_stage():
    names = ('stages.0.blocks.0.w', 'stages.1.blocks.0.w', 'stages.1.blocks.1.w', 'stages.2.norm')
    assert count_blocks(make_state(*names)) == (1, 2, 0)


def test_a_side_of_every_stage():
    state = {'s.0.w': torch.zeros(3, 5), 's.1.w': torch.zeros(7, 9)}
    assert read_sizes(state, 's.{}.w', 2) == (3, 7)
    assert read_sizes(state, 's.{}.w', 2, side=1) == (5, 9)
    with pytest.raises(KeyError):
        read_sizes(state, 's.{}.w', 3)


def test_ratios_make_the_hidden_channels_again():
    """Whatever they were made with: ``int`` cuts, and a quotient may lie just below."""
    assert find_ratios([64, 30], [16, 12]) == (4, 2.5)
    for dim in range(1, 60):
        for hidden in range(1, 8 * dim):
            (ratio,) = find_ratios([hidden], [dim])
            assert int(dim * ratio) == hidden, (dim, hidden, ratio)

"""Which tensors of a file do not fit, and which may differ."""

import pytest
import torch
from torch import nn

from mmdense.serialization.matching import (
    describe_mismatch,
    describe_prefixes,
    find_exempt,
    find_mismatch,
)


def shapes(**sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {key.replace('_', '.'): torch.empty(size) for key, size in sizes.items()}


@pytest.mark.parametrize(
    'own, found, exempt',
    [
        ((100, 64), (200, 64), True),  # the channels come last and agree
        ((100, 64), (100, 32), False),
        ((100, 64), (200, 32), False),
        ((100, 64), (100, 64), False),  # it does not differ
        ((1, 9, 64), (1, 4, 64), True),
        ((1, 9, 64), (9, 64), False),  # of another rank
        ((100,), (200,), True),  # a bias has no channels
    ],
)
def test_a_shape_may_differ_but_in_its_channels(own, found, exempt):
    own, found = shapes(a_assign=own), shapes(a_assign=found)
    assert find_exempt(own, found, r'\.assign$', None) == ({'a.assign'} if exempt else set())
    assert find_exempt(own, found, r'\.other$', 'assign') == set()
    assert find_exempt(own, found, None, None) == set()


def test_norms_may_be_absent_on_either_side():
    own, found = shapes(norm_a=(1,), norm_b=(1,), x=(1,)), shapes(norm_b=(1,), norm_c=(1,), y=(1,))
    assert find_exempt(own, found, None, r'^norm\.') == {'norm.a', 'norm.c'}


def test_mismatches_by_kind_in_one_line():
    own = shapes(a=(1,), b=(2, 3), c=(4,))
    found = shapes(b=(3, 2), c=(4,), d=(5,))
    mismatch = find_mismatch(own, found)
    assert mismatch == {
        'missing': ['a'],
        'unexpected': ['d'],
        'of another shape': ['b (3, 2) for (2, 3)'],
    }
    assert describe_mismatch(mismatch, 3) == (
        'of 3 tensors, 1 missing (a), 1 unexpected (d), 1 of another shape (b (3, 2) for (2, 3))'
    )
    many = dict(missing=['a', 'b', 'c', 'd'], unexpected=['e', 'f', 'g'])
    assert describe_mismatch(many, 9) == (
        'of 9 tensors, 4 missing (a, b, c, ...), 3 unexpected (e, f, g)'
    )
    assert describe_mismatch(find_mismatch(own, own), 3) == ''
    assert find_mismatch(own, own | shapes(b=(2, 4)))['of another shape']


def test_first_names_by_number():
    state = nn.ModuleDict(dict(a=nn.Linear(1, 1), b=nn.BatchNorm1d(1))).state_dict()
    assert describe_prefixes(state) == '5 b.*, 2 a.*'
    assert describe_prefixes({}) == 'no tensors'

"""What only GroupMixFormer has: segments."""

import pytest
from helpers import TINY, build


def test_width_that_is_not_five_segments():
    arch = dict(TINY['GroupMixFormer']['arch'], embed_dims=(16, 24, 32, 40))
    with pytest.raises(ValueError, match='not divisible by 5 segments'):
        build('GroupMixFormer', arch=arch)

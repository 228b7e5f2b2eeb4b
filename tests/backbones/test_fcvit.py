"""What only FCViT has: competing heads."""

import pytest
from helpers import build


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_heads=1), 'at least 2'),
        (dict(num_heads=6), 'not divisible by num_heads=6'),
    ],
)
def test_says_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build('FCViT', **kwargs)

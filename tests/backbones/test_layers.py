"""Maps and tokens are two views of the same numbers."""

import pytest
import torch

from mmdense.backbones.layers import to_map, to_tokens


@pytest.mark.parametrize('batch', [1, 2])
def test_views_keep_regular_strides(batch):
    """Also of a gradient, also for a batch of one: see the note in layers.py."""
    tokens = torch.randn(batch, 6 * 5, 7)
    strides = torch.empty(batch, 7, 6, 5, memory_format=torch.channels_last).stride()
    feature = to_map(tokens, (6, 5))
    assert feature.stride() == strides and feature.data_ptr() == tokens.data_ptr()
    again = to_tokens(feature)
    assert torch.equal(again, tokens) and again.data_ptr() == tokens.data_ptr()
    leaf = feature.detach().requires_grad_()
    doubled = leaf * 2
    doubled.register_hook(lambda grad: seen.append(grad.stride()))
    seen = []
    (to_tokens(doubled) * tokens).sum().backward()
    assert seen == [strides]

"""What only FCViT has: competing heads, norms of whole maps."""

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients, build
from torch import nn

from mmdense.backbones.fcvit import GlobalContext, MapNorm


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


@pytest.mark.parametrize('compete', [True, False])
def test_heads_in_one_product_and_in_one_each(compete, monkeypatch):
    """Values and gradients of both ways; the one is for training on a CPU."""
    module = GlobalContext(24, num_heads=3, reduction=4, compete=compete, weighted=True).double()
    inputs = [torch.randn(2, 24, 5, 7, dtype=torch.float64, requires_grad=True)]
    inputs += module.parameters()
    for tensor in module.parameters():
        nn.init.normal_(tensor)
    found = []
    for answer in (True, False):
        monkeypatch.setattr(module, 'has_rows', lambda tokens, answer=answer: answer)
        found.append(module(inputs[0]))
    torch.testing.assert_close(*found)
    assert_same_gradients(*found, inputs)


class TestMapNorm:
    def test_is_precise_for_large_maps(self):
        """PyTorch's group norm of a channels_last map this large is 5e-6 off."""
        norm = MapNorm(64)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        x = (3 * torch.randn(1, 64, 200, 334) + 1).contiguous(memory_format=torch.channels_last)
        weights = norm.weight.double(), norm.bias.double()
        with torch.no_grad():
            expected = F.group_norm(x.double(), 1, *weights, norm.eps)
            found = norm(x)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert (found - expected).abs().max() < 5e-7 * expected.abs().max()

    def test_on_a_gpu_it_is_group_norm(self):
        """What runs there, on a CPU: values and gradients."""
        norm = MapNorm(6).double()
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        x = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
        found = norm.scale(x, *norm.measure_on_gpu(x))
        expected = F.group_norm(x, 1, norm.weight, norm.bias, norm.eps)
        torch.testing.assert_close(found, expected)
        assert_same_gradients(found, expected, [x, norm.weight, norm.bias])

    def test_is_the_same_with_gradients(self):
        norm, x = MapNorm(6), torch.randn(2, 6, 5, 7)
        with torch.no_grad():
            torch.testing.assert_close(norm(x), norm(x.requires_grad_()).detach())

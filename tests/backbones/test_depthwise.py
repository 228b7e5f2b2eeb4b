"""Gradients of depthwise convolutions: PyTorch's own are the reference."""

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients, quick_float64
from torch import Tensor, nn

from mmdense.backbones import depthwise, fused
from mmdense.backbones.depthwise import DepthwiseConv
from mmdense.backbones.fused import chain

CASES = [  # batch, channels, height, width, window
    (2, 3, 9, 9, 5),
    (1, 2, 20, 13, 7),
    (3, 4, 5, 4, 11),
    (2, 1, 1, 1, 5),
]


@pytest.mark.parametrize('largest_map', [64, 6])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_gradients(case, largest_map, monkeypatch):
    """Whole and in tiles, of maps smaller and larger than the window."""
    monkeypatch.setattr(depthwise, 'LARGEST_MAP', largest_map)
    batch, channels, height, width, window = case
    shapes = (batch, channels, height, width), (channels, 1, window, window), (channels,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    expected = F.conv2d(*inputs, padding=window // 2, groups=channels)
    found = DepthwiseConv.apply(*inputs)
    assert torch.equal(found, expected)
    assert_same_gradients(found, expected, inputs)


def test_only_what_is_asked_for():
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 1, 5, 5)
    for wanted in (x, weight):
        wanted.requires_grad_()
        DepthwiseConv.apply(x, weight, None).sum().backward()
        assert wanted.grad is not None
        wanted.requires_grad_(False)
    assert x.grad.shape == x.shape and weight.grad.shape == weight.shape


def test_second_derivatives():
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda *args: DepthwiseConv.apply(*args, None), (x, weight))


def layer(window: int = 7, channels: int = 4, **options: object) -> nn.Conv2d:
    options = {'padding': window // 2, 'groups': channels, **options}
    return nn.Conv2d(channels, channels, window, **options)


def is_used(conv: nn.Module, x: Tensor) -> bool:
    return 'DepthwiseConv' in type(chain(x, conv).grad_fn).__name__


@pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')
def test_where_it_is_used():
    x = torch.randn(1, 4, 8, 8)
    assert is_used(layer(), x) and is_used(layer(5), x)
    assert not is_used(layer(3), x)
    assert not is_used(layer(groups=2), x)
    assert not is_used(layer(padding=0), x)
    assert not is_used(layer(stride=2), x)
    assert not is_used(layer(dilation=2, padding=6), x)
    assert not is_used(layer(padding_mode='reflect'), x)
    assert not is_used(layer().double(), x.double())
    with torch.autocast('cpu', torch.bfloat16):
        assert not is_used(layer(), x)
    watched = layer()
    watched.register_forward_hook(lambda module, args, out: None)
    assert not is_used(watched, x)


@pytest.mark.parametrize('groups, window', [(6, 3), (6, 7), (2, 3)])
def test_the_layout_of_quick_float64_changes_no_number(groups, window):
    """But the last: PyTorch's own convolution, which they replace, is the reference."""
    conv = layer(window, 6, groups=groups).double()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    x.requires_grad_()
    expected = conv(x)
    with quick_float64():
        found = conv(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert_same_gradients(found, expected, [x, conv.weight, conv.bias])

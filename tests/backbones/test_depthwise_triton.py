"""The GPU's kernels for large windows, by Triton's interpreter, on CPU tensors.

PyTorch's convolution is the reference. ``tests/engine/test_cuda.py`` runs them on a GPU.
"""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdense.backbones import depthwise_triton
from mmdense.backbones.depthwise_triton import DepthwiseConv

# Triton asks for it when it is imported, which it is by now.
IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason='a process of its own runs it')


@pytest.mark.slow
@pytest.mark.skipif(IS_INTERPRETED, reason='this is that process')
@pytest.mark.skipif(not depthwise_triton.HAS_TRITON, reason='there is no Triton')
def test_kernels():
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-rs', __file__],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'a process of its own' not in done.stdout


# batch, channels, height, width, window, and whether there is a bias: maps smaller and larger than
# the window, and than the four rows and eight columns of a program
CASES = [
    (2, 3, 2, 3, 9, True),
    (1, 2, 5, 18, 11, False),
    (1, 66, 4, 2, 9, True),
]


@interpreted
@pytest.mark.parametrize('case', CASES, ids=str)
def test_values_and_gradients(case):
    batch, channels, height, width, window, has_bias = case
    x = torch.randn(batch, channels, height, width, requires_grad=True)
    weight = torch.randn(channels, 1, window, window, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True) if has_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    want = F.conv2d(x, weight, bias, padding=window // 2, groups=channels)
    got = DepthwiseConv.apply(x, weight, bias)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad)
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@interpreted
def test_an_empty_batch():
    x = torch.randn(0, 3, 4, 5, requires_grad=True)
    weight = torch.randn(3, 1, 9, 9, requires_grad=True)
    DepthwiseConv.apply(x, weight, None).sum().backward()
    assert x.grad.shape == x.shape and not weight.grad.any()


@interpreted
def test_second_derivatives():
    """By PyTorch's own formula, once the first are differentiated."""
    x = torch.randn(1, 1, 2, 2, requires_grad=True)
    weight = torch.randn(1, 1, 9, 9, requires_grad=True)
    found = []
    for y in (
        DepthwiseConv.apply(x, weight, None),
        F.conv2d(x, weight, padding=4),
    ):
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), (x, weight)))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class OnGPU:
    """What is asked of a tensor there."""

    is_cuda = True

    def __init__(self, x: torch.Tensor) -> None:
        self.shape, self.dtype = x.shape, x.dtype


@pytest.mark.skipif(not depthwise_triton.HAS_TRITON, reason='there is no Triton')
@pytest.mark.parametrize(
    'change, is_taken',
    [
        (dict(), True),
        (dict(kernel_size=7, padding=3), False),  # cuDNN's
        (dict(stride=2), False),
        (dict(groups=1), False),
        (dict(padding_mode='reflect'), False),
        (dict(padding=4), False),
    ],
    ids=str,
)
def test_takes_plain_depthwise_layers_of_large_windows(change, is_taken):
    settings = dict(kernel_size=11, padding=5, groups=4) | change
    conv = nn.Conv2d(4, 4, **settings)
    with torch.device('meta'):
        x = torch.empty(2, 4, 8, 8)

    assert depthwise_triton.takes(conv, OnGPU(x)) == is_taken
    assert not depthwise_triton.takes(conv, x)


@pytest.mark.skipif(not depthwise_triton.HAS_TRITON, reason='there is no Triton')
@pytest.mark.parametrize(
    'shape, dtype, is_taken',
    [
        ((0, 4, 8, 8), torch.float32, True),
        ((1, 4, 4096, 1008), torch.float32, True),
        ((1, 4, 4096, 1024), torch.float32, False),  # more programs than a GPU's grid has
        ((1, 4, 8, 8), torch.bfloat16, False),  # of other weights
        ((1, 4, 8, 8), torch.float64, False),
    ],
    ids=str,
)
def test_takes_maps_that_fit(shape, dtype, is_taken):
    conv = nn.Conv2d(4, 4, 11, padding=5, groups=4)
    x = torch.empty(shape, dtype=dtype, device='meta')
    assert depthwise_triton.takes(conv, OnGPU(x)) == is_taken

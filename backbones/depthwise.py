"""The gradients of a depthwise convolution, each as another depthwise convolution.

Of y = x * K (per channel, stride 1, windows of odd side k, zero padding k // 2) they are

    dL/dx = dL/dy * K turned by 180 degrees
    dL/dK = x correlated with dL/dy, at the k x k offsets

The second, too, is a depthwise convolution of x: its "kernel" is dL/dy, as large as the map, its
output k x k. PyTorch's CPU kernels take 4 to 30 times as long for large windows.

Axis legend: B batch, C channels, k side of the window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_WINDOW = 5  # PyTorch's own gradient is quicker below
LARGEST_MAP = 64  # side; larger ones are correlated tile by tile


class DepthwiseConv(torch.autograd.Function):
    """F.conv2d(x, weight, bias, padding=k // 2, groups=C) with those gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            padding = weight.shape[2] // 2
            grad_x = F.conv2d(grad, weight.flip(2, 3), padding=padding, groups=len(weight))
        if ctx.needs_input_grad[1]:
            grad_weight = correlate(x, grad, weight.shape[2])
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias


def correlate(x: Tensor, grad: Tensor, window: int) -> Tensor:
    """sum over b, i, j of x[b, c, i + u, j + v] * grad[b, c, i, j], x zero outside: (C, 1, k, k)."""
    ...

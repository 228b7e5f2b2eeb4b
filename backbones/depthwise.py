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

SMALLEST_WINDOW = 5  # PyTorch's own gradients are quicker below
LARGEST_MAP = 32  # side; larger ones are correlated tile by tile


class DepthwiseConv(torch.autograd.Function):
    """F.conv2d(x, weight, bias, padding=k // 2, groups=C) with those gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        grad_bias = grad.sum(dim=(0, 2, 3)) if to_bias else None
        return *find_gradients(grad, x, weight, to_x, to_weight), grad_bias


def find_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dL/dx and dL/dK (C, 1, k, k), those that are wanted, from dL/dy and x, both (B, C, H, W).

    PyTorch's own are quicker for small windows, unless the map is smaller still.
    """
    window, channels = weight.shape[2], len(weight)
    if window < SMALLEST_WINDOW and window <= min(x.shape[2:]):
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            bias_sizes=None,
            stride=(1, 1),
            padding=(window // 2,) * 2,
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=channels,
            output_mask=(to_x, to_weight, False),
        )[:2]
    grad_x = grad_weight = None
    if to_x:
        grad_x = F.conv2d(grad, weight.flip(2, 3), padding=window // 2, groups=channels)
    if to_weight:
        grad_weight = correlate(x, grad, window)
    return grad_x, grad_weight


def correlate(x: Tensor, grad: Tensor, window: int) -> Tensor:
    """dL/dK (C, 1, k, k) of x and dL/dy, both (B, C, H, W)."""
    channels, height, width = x.shape[1:]
    padding = window // 2
    if max(height, width) > LARGEST_MAP:
        x, grad = cut(x, grad, padding)
        padding = 0
    # Every image's channels stand side by side, as one image of B * C channels.
    x = x.permute(2, 3, 0, 1).flatten(2)[None].permute(0, 3, 1, 2)
    grad = grad.flatten(0, 1)[:, None]
    found = F.conv2d(x, grad, padding=padding, groups=len(grad))  # (1, B * C, k, k)
    return found[0].unflatten(0, (-1, channels)).sum(dim=0)[:, None]


def cut(x: Tensor, grad: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Tiles of dL/dy as images of their own, and those of x with the border that they reach."""
    height, width = x.shape[2:]
    rows, columns = -(-height // LARGEST_MAP), -(-width // LARGEST_MAP)
    tile = -(-height // rows), -(-width // columns)
    fill = (0, columns * tile[1] - width, 0, rows * tile[0] - height)
    found = []
    for image, margin in ((x, border), (grad, 0)):
        image = F.pad(image, tuple(side + margin for side in fill) if margin else fill)
        for dim, side in zip((2, 3), tile):
            image = image.unfold(dim, side + 2 * margin, side)  # -> (B, C, rows, columns, h, w)
        found.append(image.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
    return found[0], found[1]


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution to a map of the same size."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.kernel_size[0] % 2 == 1
        and layer.padding == (layer.kernel_size[0] // 2,) * 2
        and layer.stride == layer.dilation == (1, 1)
    )


def has_large_window(layer: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution that learns more quickly in this way."""
    return is_depthwise(layer) and layer.kernel_size[0] >= SMALLEST_WINDOW

"""The feed-forward part of a transformer block, quick and with little memory on a CPU.

    y = fc2(GELU(u)),   u = fc1(x), or dwconv(fc1(x)), or that with a shortcut around dwconv

Its wide tensors, D channels, are what a block takes most memory for. Without gradients none of them
is ever there whole (see ``fused.py``). With gradients, h = fc1(x) is kept, u and GELU(u) are
computed again in the backward pass, and dL/du takes the place of dL/dGELU(u). Elsewhere, and where
the layers are not torch's own or watched, they are called as they stand.

Axis legend: B batch, N = H*W tokens, C channels, D wide channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import fused
from .depthwise import find_gradients, is_depthwise
from .layers import join, to_map, to_tokens

SLICE_BYTES = 4 * 2**20  # of a wide tensor
NARROWEST = 32  # channels of a slice, however large the map


def feed_forward(
    x: Tensor,
    size: tuple[int, int] | None,
    fc1: nn.Module,
    dwconv: nn.Module | None,
    fc2: nn.Module,
    shortcut: bool = False,
) -> Tensor:
    """fc2(GELU(y)) of y = fc1(x), or of dwconv(y), or with a shortcut of dwconv(y) + y.

    Args:
        x: Tokens (B, N, C).
        size: Their (height, width).
        fc1: C -> D, linear or a 1x1 convolution.
        dwconv: Depthwise convolution of the D channels, or ``None``.
        fc2: D -> C, as ``fc1``.
        shortcut: Around ``dwconv``.
    """
    layers = [layer for layer in (fc1, dwconv, fc2) if layer is not None]
    is_usual = fused.is_open(x) and all(map(fused.is_plain, layers))
    if not (is_usual and (dwconv is None or is_depthwise(dwconv))):
        x = _pointwise(fc1, x, size)
        if dwconv is not None:
            y = to_tokens(dwconv(to_map(x, size)))
            x = y + x if shortcut else y
        return _pointwise(fc2, F.gelu(x), size)
    kernel = bias = None
    if dwconv is not None:
        kernel, bias = dwconv.weight, dwconv.bias
        kernel = fused.add_identity(kernel) if shortcut else kernel
    weights = fc1.weight.flatten(1), fc1.bias, kernel, bias, fc2.weight.flatten(1), fc2.bias
    if not torch.is_grad_enabled():
        return feed_forward_by_slices(size, x, *weights)
    # A few images at a time: what one step of theirs writes, the next one finds in the cache.
    num_images = SLICE_BYTES * len(x) // count_bytes(x, weights[0])
    parts = x.split(max(num_images if dwconv else 2 * num_images, 1))
    return join([FeedForward.apply(size, part, *weights) for part in parts])


def feed_forward_by_slices(
    size: tuple[int, int] | None,
    x: Tensor,
    rows: Tensor,
    bias1: Tensor | None,
    kernel: Tensor | None,
    bias: Tensor | None,
    columns: Tensor,
    bias2: Tensor | None,
) -> Tensor:
    """:func:`feed_forward` of the layers' tensors, without gradients.

    Tokens do not meet, and are taken a slice at a time; around a convolution they do. The D
    channels do not meet before fc2, which adds them up: there it is a slice of them at a time.
    """
    num_slices = -(-count_bytes(x, rows) // SLICE_BYTES)
    if kernel is None:
        tokens = x.flatten(0, -2).tensor_split(num_slices)
        wide = (fused.linear(part, rows, bias1, 'gelu') for part in tokens)
        return join([fused.linear(y, columns, bias2) for y in wide]).unflatten(0, x.shape[:-1])
    width = max(-(-len(rows) // num_slices), NARROWEST)
    width += -width % 16
    out = None
    for part in (slice(i, i + width) for i in range(0, len(rows), width)):
        y = to_map(fused.linear(x, rows[part], _slice(bias1, part)), size)
        y = to_tokens(fused.depthwise(y, kernel[part], _slice(bias, part), 'gelu'))
        if out is None:
            out = fused.linear(y, columns[:, part].contiguous(), bias2)
        else:
            out.flatten(0, 1).addmm_(y.flatten(0, 1), columns[:, part].T)
    return out


def count_bytes(x: Tensor, rows: Tensor) -> int:
    """Of the wide tensor that the weights of fc1 make of x."""
    return x[..., 0].numel() * len(rows) * x.element_size()


class FeedForward(torch.autograd.Function):
    """:func:`feed_forward` of the layers' tensors, with a backward pass in little memory."""

    @staticmethod
    def forward(ctx, size: tuple[int, int] | None, x: Tensor, *weights: Tensor | None) -> Tensor:
        rows, bias1, kernel, bias, *rest = weights
        h = fused.linear(x, rows, bias1)
        ctx.size = size
        ctx.save_for_backward(h, x, *weights)
        if kernel is None:
            y = F.gelu(h)
        else:
            y = to_tokens(fused.depthwise(to_map(h, size), kernel, bias, 'gelu'))
        return fused.linear(y, *rest)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # somebody wants second derivatives
            x, rows, bias1, kernel, bias, *rest = inputs
            u = mix(F.linear(x, rows, bias1), ctx.size, kernel, bias)
            y = F.linear(F.gelu(u), *rest)
            asked = [t for t, is_needed in zip(inputs, needed) if is_needed]
            found = iter(torch.autograd.grad(y, asked, grad, create_graph=True))
            return None, *(next(found) if is_needed else None for is_needed in needed)
        x, rows, _, kernel, bias, columns, _ = inputs
        to_x, to_rows, to_bias1, to_kernel, to_bias, to_columns, to_bias2 = needed
        grads: list[Tensor | None] = [None] * len(inputs)
        u = mix(h, ctx.size, kernel, bias).flatten(0, 1)  # (B * N, D)
        grad = grad.flatten(0, 1)  # (B * N, C)
        if to_columns:
            grads[5] = fused.correlate(grad, F.gelu(u))
        if to_bias2:
            grads[6] = grad.sum(dim=0)
        grad = fused.times(grad, columns)
        torch.ops.aten.gelu_backward.grad_input(grad, u, grad_input=grad)
        if kernel is not None:
            if to_bias:
                grads[4] = grad.sum(dim=0)
            grad, grads[3] = find_gradients(
                to_map(grad.unflatten(0, (len(x), -1)), ctx.size),
                to_map(h, ctx.size),
                kernel,
                to_x=True,
                to_weight=to_kernel,
            )
            grad = to_tokens(grad).flatten(0, 1)
        if to_rows:
            grads[1] = fused.correlate(grad, x.flatten(0, 1))
        if to_bias1:
            grads[2] = grad.sum(dim=0)
        if to_x:
            grads[0] = fused.times(grad, rows).view_as(x)
        return None, *grads


def mix(
    h: Tensor, size: tuple[int, int] | None, kernel: Tensor | None, bias: Tensor | None
) -> Tensor:
    """The wide tokens (B, N, D) after the depthwise convolution, if there is one."""
    if kernel is None:
        return h
    padding = kernel.shape[2] // 2
    return to_tokens(F.conv2d(to_map(h, size), kernel, bias, padding=padding, groups=len(kernel)))


class MLP(nn.Module):
    """Pointwise expansion, a depthwise 3x3 convolution with or without shortcut, GELU, projection.

    Args:
        dim: C.
        hidden_dim: D.
        dwconv: Have the convolution.
        shortcut: Around it.
    """

    def __init__(
        self, dim: int, hidden_dim: int, dwconv: bool = False, shortcut: bool = False
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = None
        if dwconv:
            self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N, C) of a (height, width), which only a convolution asks for -> the same."""
        return feed_forward(x, size, self.fc1, self.dwconv, self.fc2, self.shortcut)


def _pointwise(layer: nn.Module, x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Call a linear layer or a 1x1 convolution on tokens."""
    return to_tokens(layer(to_map(x, size))) if isinstance(layer, nn.Conv2d) else layer(x)


def _slice(x: Tensor | None, part: slice) -> Tensor | None:
    return None if x is None else x[part]

"""Depthwise convolutions over large windows on a GPU, forward and both gradients, in Triton.

cuDNN has quick kernels for channels_last maps in half precision and windows of 3, 5 and 7; for
others PyTorch takes 2 to 8 times as long as these, and wants the map in the other layout. Here

    y     = x * K + b                           (per channel, stride 1, zero padding k // 2)
    dL/dx = dL/dy * K turned by 180 degrees     the same kernel
    dL/dK = x correlated with dL/dy             added up in float32, part by part, in a fixed order

Axis legend: B batch, C channels, k side of the window.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from .depthwise import is_depthwise

SMALLEST_WINDOW = 9  # cuDNN has the smaller ones
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_IMAGE = 2**31  # numbers of one image of the batch; offsets in it have 32 bits
MOST_TILES = 2**16  # of an image, each for a program
CHANNELS = 64  # of a program
PARTS = 128  # of the batch's rows, each with a sum of its own
HAS_TRITON = importlib.util.find_spec('triton') is not None

if HAS_TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _convolve(
        x,
        kernel,
        bias,
        y,
        height,
        width,
        channels,
        WINDOW: tl.constexpr,
        TURNED: tl.constexpr,
        HAS_BIAS: tl.constexpr,
        COLUMNS: tl.constexpr,
        CHANNELS: tl.constexpr,
    ):
        """Four rows of COLUMNS positions of y: each position of x is read once for all four."""
        image = tl.program_id(2).to(tl.int64) * height * width * channels
        across = tl.cdiv(width, COLUMNS)
        top = tl.program_id(1) // across * 4
        column = tl.program_id(1) % across * COLUMNS + tl.arange(0, COLUMNS)
        channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        is_channel = channel < channels
        start = tl.zeros((COLUMNS, CHANNELS), tl.float32)
        if HAS_BIAS:
            start += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
        sum0 = start
        sum1 = start
        sum2 = start
        sum3 = start
        for i in range(WINDOW + 3):
            row = top + i - WINDOW // 2
            in_rows = (row >= 0) & (row < height)
            for j in tl.static_range(WINDOW):
                at = column + j - WINDOW // 2
                inside = in_rows & (at >= 0) & (at < width)
                value = tl.load(
                    x + image + (row * width + at)[:, None] * channels + channel[None, :],
                    mask=inside[:, None] & is_channel[None, :],
                    other=0.0,
                ).to(tl.float32)
                for r in tl.static_range(4):
                    k = (i - r) * WINDOW + j
                    if TURNED:
                        k = WINDOW * WINDOW - 1 - k
                    weight = tl.load(
                        kernel + k * channels + channel,
                        mask=is_channel & (i >= r) & (i < r + WINDOW),
                        other=0.0,
                    ).to(tl.float32)
                    product = value * weight[None, :]
                    if r == 0:
                        sum0 += product
                    elif r == 1:
                        sum1 += product
                    elif r == 2:
                        sum2 += product
                    else:
                        sum3 += product
        to = y + image + (top * width + column)[:, None] * channels + channel[None, :]
        step = width * channels
        mask = (column < width)[:, None] & is_channel[None, :]
        tl.store(to, sum0.to(y.dtype.element_ty), mask=mask & (top < height))
        tl.store(to + step, sum1.to(y.dtype.element_ty), mask=mask & (top + 1 < height))
        tl.store(to + 2 * step, sum2.to(y.dtype.element_ty), mask=mask & (top + 2 < height))
        tl.store(to + 3 * step, sum3.to(y.dtype.element_ty), mask=mask & (top + 3 < height))

    @triton.jit
    def _correlate(
        x,
        grad,
        sums,
        rows,
        part_rows,
        height,
        width,
        channels,
        WINDOW: tl.constexpr,
        COLUMNS: tl.constexpr,
        CHANNELS: tl.constexpr,
    ):
        """Four neighbouring offsets of the window, over part of the batch's rows."""
        groups: tl.constexpr = (WINDOW + 3) // 4
        channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        is_channel = channel < channels
        i = tl.program_id(1) // groups
        j = tl.program_id(1) % groups * 4
        part = tl.program_id(2)
        step = tl.full((), 1, tl.int64) * width * channels
        sum0 = tl.zeros((COLUMNS, CHANNELS), tl.float32)
        sum1 = sum0
        sum2 = sum0
        sum3 = sum0
        for row in range(part * part_rows, min((part + 1) * part_rows, rows)):
            from_row = row % height + i - WINDOW // 2
            if (from_row >= 0) & (from_row < height):
                to = grad + row * step
                read = x + (row // height * height + from_row) * step
                for begin in range(0, width, COLUMNS):
                    column = begin + tl.arange(0, COLUMNS)
                    g = tl.load(
                        to + column[:, None] * channels + channel[None, :],
                        mask=(column < width)[:, None] & is_channel[None, :],
                        other=0.0,
                    ).to(tl.float32)
                    for r in tl.static_range(4):
                        at = column + j + r - WINDOW // 2
                        value = tl.load(
                            read + at[:, None] * channels + channel[None, :],
                            mask=((at >= 0) & (at < width))[:, None] & is_channel[None, :],
                            other=0.0,
                        ).to(tl.float32)
                        if r == 0:
                            sum0 += g * value
                        elif r == 1:
                            sum1 += g * value
                        elif r == 2:
                            sum2 += g * value
                        else:
                            sum3 += g * value
        to = sums + ((part * WINDOW + i) * WINDOW + j) * channels + channel
        tl.store(to, tl.sum(sum0, 0), mask=is_channel)
        tl.store(to + channels, tl.sum(sum1, 0), mask=is_channel & (j + 1 < WINDOW))
        tl.store(to + 2 * channels, tl.sum(sum2, 0), mask=is_channel & (j + 2 < WINDOW))
        tl.store(to + 3 * channels, tl.sum(sum3, 0), mask=is_channel & (j + 3 < WINDOW))


class DepthwiseConv(torch.autograd.Function):
    """F.conv2d(x, weight, bias, padding=k // 2, groups=C), all of one dtype, channels_last."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants second derivatives
            padding, ones = [weight.shape[2] // 2] * 2, [1, 1]
            sizes = [len(weight)], ones, padding, ones, False, [0, 0], len(weight)
            return torch.ops.aten.convolution_backward(
                grad, x, weight, *sizes, ctx.needs_input_grad
            )
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = convolve(grad, weight, None, turned=True)
        if ctx.needs_input_grad[1]:
            grad_weight = correlate(x, grad, weight.shape[2]).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool = False) -> Tensor:
    """x (B, C, H, W) * weight (C, 1, k, k), or that weight turned by 180 degrees, plus bias (C,).

    x and what is returned are channels_last.
    """
    y = torch.empty_like(x)
    if not x.numel():
        return y
    batch, channels, height, width = x.shape
    grid = triton.cdiv(channels, CHANNELS), _count_tiles(height, width), batch
    with torch.cuda.device_of(x):  # Triton starts its programs on the current device
        _convolve[grid](
            x,
            weight[:, 0].permute(1, 2, 0).contiguous(),  # (k, k, C)
            bias,
            y,
            height,
            width,
            channels,
            WINDOW=weight.shape[2],
            TURNED=turned,
            HAS_BIAS=bias is not None,
            COLUMNS=_choose_columns(width),
            CHANNELS=CHANNELS,
            num_warps=4,
        )
    return y


def correlate(x: Tensor, grad: Tensor, window: int) -> Tensor:
    """dL/dK (C, 1, k, k), in float32, of x and dL/dy, both (B, C, H, W) and channels_last."""
    batch, channels, height, width = x.shape
    if not x.numel():
        return x.new_zeros(channels, 1, window, window, dtype=torch.float32)
    rows = batch * height
    part_rows = triton.cdiv(rows, PARTS)
    parts = triton.cdiv(rows, part_rows)
    sums = x.new_empty(parts, window, window, channels, dtype=torch.float32)
    grid = triton.cdiv(channels, CHANNELS), window * triton.cdiv(window, 4), parts
    with torch.cuda.device_of(x):
        _correlate[grid](
            x,
            grad,
            sums,
            rows,
            part_rows,
            height,
            width,
            channels,
            WINDOW=window,
            COLUMNS=_choose_columns(width),
            CHANNELS=CHANNELS,
            num_warps=4,
        )
    return sums.sum(dim=0).permute(2, 0, 1)[:, None].contiguous()


def takes(layer: nn.Module, x: Tensor) -> bool:
    """Whether :func:`call` takes the place of a layer: quicker, to the same numbers."""
    return (
        x.is_cuda
        and HAS_TRITON
        and type(layer) is nn.Conv2d
        and type(layer.weight) is nn.Parameter
        and is_depthwise(layer)
        and layer.kernel_size[0] >= SMALLEST_WINDOW
        and layer.padding_mode == 'zeros'
        and x.dtype in DTYPES
        and (layer.weight.dtype == x.dtype or torch.is_autocast_enabled('cuda'))
        and x.shape[1:].numel() < LARGEST_IMAGE
        and _count_tiles(*x.shape[2:]) < MOST_TILES
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def call(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise layer of a large window, in autocast's dtype where there is one."""
    dtype = torch.get_autocast_dtype('cuda') if torch.is_autocast_enabled('cuda') else x.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return DepthwiseConv.apply(x.to(dtype), layer.weight.to(dtype), bias)


def _choose_columns(width: int) -> int:
    """Positions of a row in a program: no more than are there, mostly."""
    return 8 if width <= 8 else 16


def _count_tiles(height: int, width: int) -> int:
    """Programs that share an image: each has four rows of a few positions."""
    return triton.cdiv(height, 4) * triton.cdiv(width, _choose_columns(width))

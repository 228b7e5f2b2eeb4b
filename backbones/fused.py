"""Layers together with what stands right behind them, in one pass where no gradient is needed.

On a CPU an activation, a bias or a shortcut costs another trip through memory, and a large tensor
also the pages that it is first written to. Without gradients, oneDNN adds them while it still holds
the product. With gradients, some convolutions take another form that learns more quickly. Elsewhere
every layer is called as it stands: in autocast, on other devices and types, in compilation, export
and tracing, and layers that somebody has changed or listens to; but large windows on a GPU, which
``depthwise_triton.py`` has kernels for.

Axis legend: B batch, C channels.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.flop_counter import (
    addmm_flop,
    baddbmm_flop,
    conv_flop_count,
    flop_registry,
    register_flop_formula,
)

from . import depthwise_triton, norm_hardswish
from .depthwise import DepthwiseConv, has_large_window
from .layers import to_map, to_tokens

# Measured on x86 alone; PyTorch keeps these operators for its compiler, so they may go.
AVAILABLE = (
    platform.machine().lower() in ('x86_64', 'amd64')
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)
# With 256-bit registers oneDNN's product is the quicker one of few channels only, and GELU in its
# memory quicker than as part of the product.
HAS_WIDE_REGISTERS = torch.backends.cpu.get_cpu_capability() == 'AVX512'
MANY_CHANNELS = 320
IN_PLACE = {
    'none': lambda x: x,
    'gelu': torch.ops.aten.gelu_,
    'hardswish': partial(F.hardswish, inplace=True),
}
Step = Callable[[Tensor], Tensor]


def is_open(x: Tensor) -> bool:
    """Whether x is what oneDNN takes, float32 on a CPU, and nothing but values is asked for."""
    return (
        AVAILABLE
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and type(x) is Tensor
        and x.device.type == 'cpu'
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled('cpu')
    )


def may_fuse(x: Tensor, *layers: nn.Module | None) -> bool:
    """Whether these layers may run on x as one."""
    plain = all(is_plain(layer) for layer in layers if layer is not None)
    return plain and not torch.is_grad_enabled() and is_open(x)


def is_plain(layer: object) -> bool:
    """Whether a layer is torch's own, of float32 weights, zero padding and no hooks."""
    kind = type(layer)
    return (
        (kind is nn.Linear or (kind is nn.Conv2d and pads_with_zeros(layer)))
        and type(weight := layer.weight) is nn.Parameter
        and weight.dtype == torch.float32
        and not is_watched(layer)
    )


def pads_with_zeros(layer: nn.Conv2d) -> bool:
    """Whether a convolution puts a stated number of zeros around a map."""
    return layer.padding_mode == 'zeros' and type(layer.padding) is not str


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see what comes in or out of a module, or their gradients."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def call(step: Step, x: Tensor) -> Tensor:
    """A step as it stands, except a convolution that is quicker in another form."""
    if depthwise_triton.takes(step, x) and not is_watched(step):
        return depthwise_triton.call(step, x)
    if not (torch.is_grad_enabled() and is_plain(step) and is_open(x)):
        return step(x)
    if isinstance(step, nn.Linear):
        return project(x, step.weight, step.bias)
    if is_pointwise(step):  # all images in one product
        return to_map(project(to_tokens(x), step.weight.flatten(1), step.bias), x.shape[2:])
    if has_large_window(step):
        return DepthwiseConv.apply(x, step.weight, step.bias)
    return step(x)


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a 1x1 convolution, that is, a linear layer at every position."""
    return isinstance(layer, nn.Conv2d) and (
        layer.kernel_size == layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
    )


def chain(x: Tensor, *steps: Step | None) -> Tensor:
    """Apply steps in turn: layers, sequences of layers, ``F.gelu``, ``F.hardswish``; not ``None``.

    Without gradients a convolution takes in the batch norm and the activation behind it, a linear
    layer the activation.
    """
    rest = list(_flatten(steps))[::-1]
    if not may_fuse(x):
        while rest:
            step = rest.pop()
            if rest and _are_norm_and_hardswish(step, rest[-1], x):
                rest.pop()
                x = norm_hardswish.call(x, step)
            else:
                x = call(step, x)
        return x
    while rest:
        step = rest.pop()
        if not is_plain(step):
            x = step(x)
            continue
        weight, bias = step.weight, step.bias
        if isinstance(step, nn.Conv2d) and rest and _is_foldable(rest[-1]):
            norm = rest.pop()
            statistics = norm.running_mean, norm.running_var, norm.eps
            weight, bias = fuse_conv_bn_weights(weight, bias, *statistics, norm.weight, norm.bias)
        activation = _name_activation(rest[-1]) if rest else 'none'
        if activation != 'none':
            rest.pop()
        if isinstance(step, nn.Linear):
            x = linear(x, weight, bias, activation)
        elif is_pointwise(step):
            x = to_map(linear(to_tokens(x), weight.flatten(1), bias, activation), x.shape[2:])
        else:
            sides = step.padding, step.stride, step.dilation
            x = conv(x, weight, bias, *sides, step.groups, activation, [], 'none')
    return x


def add_depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """x (B, C, H, W) plus its depthwise convolution."""
    if not may_fuse(x, layer):
        return x + layer(x)
    return depthwise(x, add_identity(layer.weight), layer.bias)


def depthwise_side_by_side(x: Tensor, layers: Sequence[nn.Conv2d]) -> Tensor:
    """Depthwise convolutions of several window sizes, each of as many channels of x as it has."""
    if not may_fuse(x, *layers):
        parts = x.split([layer.in_channels for layer in layers], dim=1)
        return torch.cat([call(layer, part) for layer, part in zip(layers, parts)], dim=1)
    return depthwise(x, *join_windows(layers))


def join_windows(layers: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Kernels and biases of depthwise convolutions as of one, with the widest of their windows."""
    widest = max(layer.kernel_size[0] for layer in layers)
    margins = [(widest - layer.kernel_size[0]) // 2 for layer in layers]
    kernels = [F.pad(layer.weight, (margin,) * 4) for layer, margin in zip(layers, margins)]
    return torch.cat(kernels), torch.cat([layer.bias for layer in layers])


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """x (B, C, H, W) * kernel (C, 1, k, k) and an activation, without gradients."""
    padding, ones = [kernel.shape[2] // 2] * 2, [1, 1]
    if x.dtype != torch.float32:
        y = F.conv2d(x, kernel, bias, padding=padding, groups=len(kernel))
        return IN_PLACE[activation](y)
    return conv(x, kernel, bias, padding, ones, ones, len(kernel), activation, [], 'none')


def add_identity(kernel: Tensor) -> Tensor:
    """The depthwise kernel K + 1 in the middle: its convolution of x is that of K, plus x."""
    kernel = kernel.clone()
    kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += 1
    return kernel


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """A linear layer and an activation, by what is quickest here, without gradients."""
    is_for_mkl = not HAS_WIDE_REGISTERS and weight.shape[1] >= MANY_CHANNELS
    if is_for_mkl or x.dtype != torch.float32:
        return IN_PLACE[activation](F.linear(x, weight, bias))
    product = torch.ops.mkldnn._linear_pointwise
    if not HAS_WIDE_REGISTERS and activation == 'gelu':
        return IN_PLACE[activation](product(x, weight, bias, 'none', [], 'none'))
    return product(x, weight, bias, activation, [], 'none')


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer by what is quickest here, with gradients or without."""
    if not (is_open(x) and weight.dtype == torch.float32):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return linear(x, weight, bias)
    return Linear.apply(x, weight, bias) if HAS_WIDE_REGISTERS else F.linear(x, weight, bias)


class Linear(torch.autograd.Function):
    """F.linear; both products that have the weights in them are oneDNN's, a sixth quicker."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            times(grad, weight) if to_x else None,
            correlate(rows, x.flatten(0, -2)) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )


def times(grad: Tensor, weight: Tensor) -> Tensor:
    """dL/dy W, the gradient of a linear layer's input."""
    if HAS_WIDE_REGISTERS and is_open(grad) and not torch.is_grad_enabled():
        return linear(grad, weight.T, None)
    return grad @ weight


def correlate(grad: Tensor, x: Tensor) -> Tensor:
    """(dL/dy)^T x, the gradient (C', C) of a linear layer's weights, of rows (N, C') and (N, C)."""
    is_narrowing = MANY_CHANNELS <= grad.shape[1] < x.shape[1]  # elsewhere MKL is the quicker one
    if HAS_WIDE_REGISTERS and is_narrowing and is_open(grad) and not torch.is_grad_enabled():
        return linear(grad.T, x.T, None)
    return grad.T @ x


def conv(*args: object) -> Tensor:
    """oneDNN's convolution with what follows it; where they may fuse."""
    return torch.ops.mkldnn._convolution_pointwise(*args)


def _flatten(steps: Iterable[Step | None]) -> Iterator[Step]:
    """The steps one by one, those within sequences too, but what does nothing."""
    for step in steps:
        if type(step) is nn.Sequential and not is_watched(step):
            yield from _flatten(step)
        elif step is not None and type(step) is not nn.Identity:
            yield step


def _is_foldable(step: Step) -> bool:
    """Whether a step is a batch norm that scales and shifts each channel by constants."""
    return (
        type(step) in (nn.BatchNorm2d, nn.SyncBatchNorm)
        and not step.training
        and step.running_mean is not None
        and step.running_mean.dtype == torch.float32
        and not is_watched(step)
    )


def _are_norm_and_hardswish(norm: Step, activation: Step, x: Tensor) -> bool:
    """Whether two steps with gradients are those that ``norm_hardswish.py`` does in one."""
    return (
        _name_activation(activation) == 'hardswish'
        and torch.is_grad_enabled()
        and is_open(x)
        and norm_hardswish.takes(x, norm)
        and not is_watched(norm)
    )


def _name_activation(step: Step) -> str:
    """oneDNN's name of an activation; 'none' for other steps."""
    if isinstance(step, nn.Module) and is_watched(step):
        return 'none'
    if type(step) is nn.GELU and step.approximate == 'none':
        return 'gelu'
    if type(step) is nn.Hardswish or step is F.hardswish:
        return 'hardswish'
    return 'gelu' if step is F.gelu else 'none'


def _count_linear(x_shape: tuple, *_: object, out_shape: tuple, **__: object) -> int:
    rows, channels = x_shape[:-1], x_shape[-1]
    return 2 * math.prod(rows) * channels * out_shape[-1]


def _count_conv(x_shape: tuple, w_shape: tuple, *_: object, out_shape: tuple, **__: object) -> int:
    return conv_flop_count(x_shape, w_shape, out_shape)


if AVAILABLE:  # so that torch's FlopCounterMode sees them
    for target, formula in (
        (torch.ops.mkldnn._linear_pointwise, _count_linear),
        (torch.ops.mkldnn._convolution_pointwise, _count_conv),
        (torch.ops.aten.addmm_, addmm_flop),
        (torch.ops.aten.baddbmm_, baddbmm_flop),
    ):
        if target not in flop_registry:
            register_flop_formula(target)(formula)

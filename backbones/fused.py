"""Layers together with what stands right behind them, in one pass where no gradient is needed.

On a CPU an activation, a bias or a shortcut costs another trip through memory, and a large tensor
also the pages that it is first written to. Without gradients, oneDNN adds them while it still holds
the product, and :func:`feed_forward` never has its wide tensor whole. Elsewhere every layer is
called as it stands: in training and autocast, on other devices and types, in compilation, export
and tracing, and layers that somebody has changed or listens to.

Axis legend: B batch, N = H*W tokens, C channels, D wide channels.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from .depthwise import DepthwiseConv, has_large_window
from .layers import to_map, to_tokens

# Measured on x86 alone; PyTorch keeps these operators for its compiler, so they may go.
AVAILABLE = (
    platform.machine().lower() in ('x86_64', 'amd64')
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)
SLICE_BYTES = 8 * 2**20  # of a wide tensor; from 8 to 24 MB the times are alike
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
    return (
        type(layer) in (nn.Linear, nn.Conv2d)
        and type(layer.weight) is nn.Parameter
        and layer.weight.dtype == torch.float32
        and getattr(layer, 'padding_mode', 'zeros') == 'zeros'
        and not isinstance(getattr(layer, 'padding', 0), str)
        and not is_watched(layer)
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see what comes in or out of a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def call(step: Step, x: Tensor) -> Tensor:
    """A step as it stands, except a depthwise convolution that learns more quickly otherwise."""
    if torch.is_grad_enabled() and has_large_window(step) and is_plain(step) and is_open(x):
        return DepthwiseConv.apply(x, step.weight, step.bias)
    return step(x)


def chain(x: Tensor, *steps: Step | None) -> Tensor:
    """Apply steps in turn: layers, sequences of layers, ``F.gelu``, ``F.hardswish``; not ``None``.

    Without gradients a convolution takes in the batch norm and the activation behind it, a linear
    layer the activation.
    """
    rest = list(_flatten(steps))[::-1]
    if not may_fuse(x):
        while rest:
            x = call(rest.pop(), x)
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
            x = _linear(x, weight, bias, activation)
        else:
            x = _conv(x, weight, bias, step, activation)
    return x


def add_depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """x (B, C, H, W) plus its depthwise convolution."""
    if not may_fuse(x, layer):
        return x + layer(x)
    return _conv(x, _add_identity(layer.weight), layer.bias, layer)


def depthwise_side_by_side(x: Tensor, layers: Sequence[nn.Conv2d]) -> Tensor:
    """Depthwise convolutions of several window sizes, each of as many channels of x as it has."""
    if not may_fuse(x, *layers):
        parts = x.split([layer.in_channels for layer in layers], dim=1)
        return torch.cat([call(layer, part) for layer, part in zip(layers, parts)], dim=1)
    widest = max(layers, key=lambda layer: layer.kernel_size)
    margins = [(widest.kernel_size[0] - layer.kernel_size[0]) // 2 for layer in layers]
    kernels = [F.pad(layer.weight, (margin,) * 4) for layer, margin in zip(layers, margins)]
    bias = torch.cat([layer.bias for layer in layers])
    return _conv(x, torch.cat(kernels), bias, widest, groups=x.shape[1])


def feed_forward(
    x: Tensor,
    size: tuple[int, int],
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
    if not may_fuse(x, fc1, dwconv, fc2):
        x = _pointwise(fc1, x, size)
        if dwconv is not None:
            y = to_tokens(dwconv(to_map(x, size)))
            x = y + x if shortcut else y
        return _pointwise(fc2, F.gelu(x), size)
    kernel = None if dwconv is None else dwconv.weight
    if kernel is not None and shortcut:
        kernel = _add_identity(kernel)
    # The D channels do not meet before fc2, which adds them up: one slice of them at a time.
    rows, columns = fc1.weight.flatten(1), fc2.weight.flatten(1)
    wide_bytes = x[..., 0].numel() * len(rows) * x.element_size()
    width = -(-len(rows) // -(-wide_bytes // SLICE_BYTES))
    width += -width % 16
    out = None
    for part in (slice(i, i + width) for i in range(0, len(rows), width)):
        bias = None if fc1.bias is None else fc1.bias[part]
        if kernel is None:
            y = _linear(x, rows[part], bias, 'gelu')
        else:
            y = to_map(_linear(x, rows[part], bias), size)
            bias = None if dwconv.bias is None else dwconv.bias[part]
            y = to_tokens(_conv(y, kernel[part], bias, dwconv, 'gelu', groups=y.shape[1]))
        if out is None:
            out = _linear(y, columns[:, part].contiguous(), fc2.bias)
        else:
            out.flatten(0, 1).addmm_(y.flatten(0, 1), columns[:, part].T)
    return out


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


def _pointwise(layer: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Call a linear layer or a 1x1 convolution on tokens."""
    return to_tokens(layer(to_map(x, size))) if isinstance(layer, nn.Conv2d) else layer(x)


def _add_identity(kernel: Tensor) -> Tensor:
    """The depthwise kernel K + 1 in the middle: its convolution of x is that of K, plus x."""
    kernel = kernel.clone()
    kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += 1
    return kernel


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], 'none')


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    like: nn.Conv2d,
    activation: str = 'none',
    groups: int | None = None,
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x,
        weight,
        bias,
        like.padding,
        like.stride,
        like.dilation,
        groups or like.groups,
        activation,
        [],
        'none',
    )


def _flatten(steps: Iterable[Step | None]) -> Iterator[Step]:
    """The steps one by one, those within sequences too."""
    for step in steps:
        if type(step) is nn.Sequential and not is_watched(step):
            yield from _flatten(step)
        elif step is not None:
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
    for name, formula in (('_linear', _count_linear), ('_convolution', _count_conv)):
        target = getattr(torch.ops.mkldnn, f'{name}_pointwise')
        if target not in flop_registry:
            register_flop_formula(target)(formula)

"""Batch norm and Hardswish with gradients, of one map kept for the backward pass instead of two.

    z = Hardswish(y),   y = (x - mean) / sqrt(var + eps) * weight + bias

autograd keeps x and y. Here y is computed again from x and the statistics, and the gradient, which
is often a slice of a wider tensor, is laid out like x first: PyTorch's kernel for Hardswish takes
20 times as long for slices. Otherwise the layers' own operators do it all.

Axis legend: B batch, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormHardswish(torch.autograd.Function):
    """F.hardswish(F.batch_norm(x, ...)) of a channels_last map (B, C, H, W)."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor],
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, *batch = torch.native_batch_norm(x, weight, bias, *running, training, momentum, eps)
        ctx.save_for_backward(x, weight, bias, *(batch if training else running))
        ctx.training, ctx.eps = training, eps
        return F.hardswish(y, inplace=True)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *statistics = ctx.saved_tensors
        training, eps, needed = ctx.training, ctx.eps, ctx.needs_input_grad[:3]
        none = (None, None)
        running, batch = (none, statistics) if training else (statistics, none)
        if torch.is_grad_enabled():  # somebody wants second derivatives
            z = F.hardswish(F.batch_norm(x, *running, weight, bias, training, 0.0, eps))
            asked = [t for t, is_needed in zip((x, weight, bias), needed) if is_needed]
            each = iter(torch.autograd.grad(z, asked, grad, create_graph=True))
            found = [next(each) if is_needed else None for is_needed in needed]
            return *found, *none, *none
        mean, var = statistics
        if training:  # of a batch, 1 / deviation is kept
            var = var.pow(-2) - eps
        y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad = torch.ops.aten.hardswish_backward(grad, y)
        found = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, *running, *batch, training, eps, needed
        )
        return *found, *none, *none


def call(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Hardswish(norm(x)) with gradients, and the norm's own bookkeeping."""
    if norm.training:
        norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    return NormHardswish.apply(
        x, norm.weight, norm.bias, running, norm.training, norm.momentum, norm.eps
    )


def takes(x: Tensor, norm: object) -> bool:
    """Whether a step is a batch norm as PyTorch makes it, and x a map that has statistics."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == norm.running_mean.dtype == torch.float32
        and x.dim() == 4
        and x[:, 0].numel() > 1
        and x.is_contiguous(memory_format=torch.channels_last)
    )

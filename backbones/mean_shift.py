"""A step of mean shift, the attention of MSF (``msf.py``), in the quickest way there is.

PyTorch's fused kernels never have the N x N weights in memory. While they stay in a CPU's cache,
plain products with them are quicker in training.

Axis legend: B batch, N tokens, h heads, d channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fused import is_open
from .layers import join

WEIGHT_BYTES = 4 * 2**20  # that stay in the cache


def mean_shift(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """sum_j w_ij v_j of (B, h, N, d) tensors, without an N x N tensor where a fused kernel exists.

    -|k|^2/2 is a bias per key. Without gradients it goes to the kernel as a mask of one row; fused
    kernels have no gradient for a mask, so in training it rides along as one more channel: k gets
    it, q gets a one there, and zeros fill up to the next multiple of 8, which the kernels want.
    """
    dim = q.shape[-1]
    bias = bias_of_keys(k)
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=dim**-0.5 * bias.transpose(2, 3))
    padding = 7 - dim % 8
    q = F.pad(torch.cat([q, torch.ones_like(bias)], dim=-1), (0, padding))
    k = F.pad(torch.cat([k, bias], dim=-1), (0, padding))
    v = F.pad(v, (0, 1 + padding))
    return F.scaled_dot_product_attention(q, k, v, scale=dim**-0.5)[..., :dim]


def bias_of_keys(k: Tensor) -> Tensor:
    """-|k|^2/2 (..., N, 1), and its mean taken out: the same softmax, of smaller numbers."""
    bias = -0.5 * k.square().sum(dim=-1, keepdim=True)
    return (bias - bias.mean(dim=-2, keepdim=True)).to(k.dtype)


def shift(parts: Tensor) -> Tensor:
    """mean_shift(q, k, v) - p of (B, N, 4, h, d), their parts side by side -> (B, N, h, d)."""
    image_bytes = parts.shape[3] * parts.shape[1] ** 2 * parts.element_size()  # of its weights
    if torch.is_grad_enabled() and is_open(parts) and image_bytes <= WEIGHT_BYTES:
        lots = parts.split(WEIGHT_BYTES // image_bytes)
        return join([MeanShift.apply(images) for images in lots])
    q, k, v, p = parts.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
    return (mean_shift(q, k, v) - p).transpose(1, 2)


class MeanShift(torch.autograd.Function):
    """:func:`shift` by plain products; the N x N weights are made again in the backward pass.

    With e = dL/ds of the scores s in the softmax, its gradients are

        dL/dq_i = sum_j e_ij k_j / sqrt(d),   dL/dk_j = sum_i e_ij (q_i - k_j) / sqrt(d)

    q, k, v and p come in one tensor, and so do their gradients. There are no second derivatives, as
    there are none of PyTorch's kernel.
    """

    @staticmethod
    def weigh(q: Tensor, k: Tensor) -> Tensor:
        """w (B*h, N, N) of (B*h, N, d)."""
        scale = q.shape[-1] ** -0.5
        bias = bias_of_keys(k).transpose(1, 2)
        return torch.baddbmm(bias, q, k.transpose(1, 2), beta=scale, alpha=scale).softmax(dim=-1)

    @staticmethod
    def forward(ctx, parts: Tensor) -> Tensor:
        parts = parts.permute(2, 0, 3, 1, 4)  # (4, B, h, N, d)
        q, k, v = parts[:3].flatten(1, 2)  # each (B*h, N, d)
        ctx.save_for_backward(q, k, v)
        y = torch.baddbmm(parts[3].flatten(0, 1), MeanShift.weigh(q, k), v, beta=-1)
        return y.unflatten(0, parts.shape[1:3]).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        q, k, v = ctx.saved_tensors
        grad = grad.transpose(1, 2)  # (B, h, N, d)
        size, scale = grad.shape[:2], q.shape[-1] ** -0.5
        found = grad.new_empty(len(grad), grad.shape[2], 4, size[1], grad.shape[3])
        to_q, to_k, to_v, to_p = found.permute(2, 0, 3, 1, 4)
        torch.neg(grad, out=to_p)
        grad = grad.flatten(0, 1)
        w = MeanShift.weigh(q, k)
        to_v.copy_((w.transpose(1, 2) @ grad).unflatten(0, size))
        e = torch.ops.aten._softmax_backward_data(grad @ v.transpose(1, 2), w, -1, w.dtype)
        torch.mul((e @ k).unflatten(0, size), scale, out=to_q)
        move = torch.baddbmm(k * e.sum(dim=1)[..., None], e.transpose(1, 2), q, beta=-1)
        torch.mul(move.unflatten(0, size), scale, out=to_k)
        return found

"""MSF: a vision transformer whose attention is a step of mean shift (Kobayashi, CVPR 2024).

Mean-Shift Feature Transformer. The released code (github.com/tk1980/MSFtransformer) has no licence;
this file is written from the paper's equations.

Softmax attention is a step of mean shift when its weights are a Gaussian kernel of the distance
between q and k, and when a token moves to the weighted mean *relative to where it is*:

    w_ij = softmax_j(-|q_i - k_j|^2 / 2 sqrt(d)) = softmax_j((q_i . k_j - |k_j|^2 / 2) / sqrt(d))
    y_i  = sum_j w_ij v_j - p_i

with p a fourth projection beside q, k and v. Grouped projections halve (g = 2) their parameters.

Axis legend: B batch, N tokens, D channels, h heads, d = D/h, g groups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from ..registry import MODELS
from .base import BaseBackbone
from .feed_forward import MLP
from .fused import chain, project
from .layers import run_block, to_map, to_tokens
from .mean_shift import shift

TEMPERATURE = 10000


def sincos_position(size: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Fixed position table (H*W, D): sin x, cos x, sin y, cos y of D/4 frequencies each."""
    height, width = size
    steps = torch.arange(dim // 4, device=device, dtype=torch.float32) / (dim // 4 - 1)
    omega = 1.0 / TEMPERATURE**steps
    x = torch.arange(width, device=device, dtype=torch.float32)[:, None] * omega  # (W, D/4)
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None] * omega  # (H, D/4)
    x = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(height, -1, -1)
    y = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, width, -1)
    return torch.cat([x, y], dim=2).flatten(0, 1)


class GroupedLinear(nn.Module):
    """A linear layer whose input is cut in g blocks, each with its own (out/g, in/g) matrix.

    Args:
        in_dim: Channels in.
        out_dim: Channels out.
        groups: g; 1 is an ordinary linear layer.
        order: 'interleave': output channel c is of group c mod g; 'block': groups are contiguous.
        bias: Whether to add one.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        groups: int = 1,
        order: str = 'interleave',
        bias: bool = False,
    ) -> None:
        super().__init__()
        if in_dim % groups or out_dim % groups:
            raise ValueError(
                f'{in_dim} and {out_dim} channels are not divisible in {groups} groups'
            )
        if order not in ('interleave', 'block'):
            raise ValueError(f"unknown order '{order}' of groups; known are interleave, block")
        self.groups = groups
        self.order = order
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim // groups))
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        if self.groups == 1:
            return project(x, self.weight, self.bias)
        blocks = x.unflatten(-1, (self.groups, -1))  # (..., g, in/g)
        weight = self.weight.unflatten(0, (self.groups, -1))  # (g, out/g, in/g)
        equation = '...gi,goi->...og' if self.order == 'interleave' else '...gi,goi->...go'
        y = torch.einsum(equation, blocks, weight).flatten(-2)
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    """Multi-head attention, ordinary ('orig') or mean shift ('msf')."""

    def __init__(self, dim: int, num_heads: int, kind: str, groups: int, order: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_parts = {'orig': 3, 'msf': 4}[kind]
        self.qkv = GroupedLinear(dim, self.num_parts * dim, groups, order)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        parts = self.qkv(x).unflatten(2, (self.num_parts, self.num_heads, -1))
        if self.num_parts == 4:
            x = shift(parts)  # (B, N, h, d)
        else:
            x = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4)).transpose(1, 2)
        return chain(x.flatten(2), self.proj)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, attn: Attention, hidden_dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches as vectors of pixels, (row, column, channel) order -> LN -> linear -> LN.

    A right or lower border that fills no patch is padded with zeros.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        patch_dim = in_channels * patch_size**2
        self.norm1 = nn.LayerNorm(patch_dim)
        self.proj = nn.Linear(patch_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, C, H, W) -> tokens (B, N, D) and their (height, width)."""
        p = self.patch_size
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % p, 0, -height % p))
        x = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, h, p, w, p)
        size = (x.shape[2], x.shape[4])
        x = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, hw, ppC)
        return self.norm2(self.proj(self.norm1(x))), size


@MODELS.register_module()
class MSFViT(BaseBackbone):
    """SimpleViT with ordinary or mean-shift attention; every map has the stride of the patches.

    For a feature pyramid, put ``mmseg.Feature2Pyramid`` behind it: strides 4, 8, 16, 32.

    Args:
        arch: A name in ``arch_zoo``, or a dict with the keys of its rows.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth of the last layer; the first has 0, linear in between.
        out_indices: Layers whose output is returned; negative counts from the end.
        frozen_stages: 0 freezes the patch embedding, k also the first k layers; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training (the model has none).
        with_cp: Recompute layers in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` or ``None``.
        patch_size: Side of a patch in pixels.
        attention: 'msf', or 'orig' for ordinary attention.
        groups: g of the projections to q, k, v (and p); must divide the channels.
        group_order: How the outputs of the groups are ordered, see :class:`GroupedLinear`.
        out_type: 'featmap' returns maps (B, D, H, W); 'avg_featmap' the normalized mean over the
            tokens (B, D), for classification without a neck.

    Raises:
        ValueError: For an unknown arch, attention, order or layer index, or dimensions that do not
            fit.

    Source: paper, Sec. 3; SimpleViT: arXiv 2205.01580; every LayerNorm has eps 1e-5.
    """

    arch_zoo = {
        'small': dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    }

    first = 'patch_embed'
    sequence = 'layers'
    may_be_absent = r'^norm\.'  # the classifier's

    def __init__(
        self,
        arch: str | dict = 'small',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        *,
        patch_size: int = 16,
        attention: str = 'msf',
        groups: int = 1,
        group_order: str = 'interleave',
        out_type: str = 'featmap',
    ) -> None:
        arch = self.get_arch(arch)
        dim, depth, num_heads = arch['embed_dims'], arch['num_layers'], arch['num_heads']
        super().__init__(
            [dim] * depth,
            [patch_size] * depth,
            out_indices,
            frozen_stages,
            norm_eval,
            with_cp,
            init_cfg,
        )
        if dim % num_heads or dim % 4:
            raise ValueError(f'embed_dims={dim} is not divisible by num_heads={num_heads} and by 4')
        if attention not in ('orig', 'msf'):
            raise ValueError(f"unknown attention '{attention}'; known are orig, msf")
        if out_type not in ('featmap', 'avg_featmap'):
            raise ValueError(f"unknown out_type '{out_type}'; known are featmap, avg_featmap")
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.layers = nn.ModuleList()
        for drop_path in calculate_drop_path_rates(drop_path_rate, depth):
            attn = Attention(dim, num_heads, attention, groups, group_order)
            self.layers.append(Block(dim, attn, arch['feedforward_channels'], drop_path))
        self.norm = nn.LayerNorm(dim) if out_type == 'avg_featmap' else None
        self.freeze()

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        """As every backbone's."""
        x, size = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        x = x + sincos_position(size, x.shape[2], x.device).to(x.dtype)
        maps = {}
        for i, layer in zip(range(max(indices) + 1), self.layers):
            x = run_block(layer, self.with_cp, x)
            if i in indices:
                maps[i] = to_map(x, size)
        return maps

    def finish(self, i: int, feature: Tensor) -> Tensor:
        """The map, or with ``out_type='avg_featmap'`` the normalized mean (B, D) of its tokens."""
        return feature if self.norm is None else self.norm(to_tokens(feature).mean(dim=1))

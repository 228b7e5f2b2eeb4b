"""PaCa-ViT: patch-to-cluster attention (Grainger et al., CVPR 2023).

https://arxiv.org/abs/2203.11987. The authors' code is at github.com/iVMCL/PaCaViT (MIT).

Plain attention compares N patches with N patches. Here every patch attends to M learned clusters
instead, so the cost is linear in N:

    Z = softmax_N(f(X))            (M, N)  each cluster is a distribution over the positions
    C = LayerNorm(Z X)             (M, C)  the clusters
    Y = softmax(Q(X) K(C)^T / sqrt(d)) V(C)

Axis legend: B batch, N = H*W tokens, M clusters, C channels, h heads, d = C/h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..registry import MODELS
from .layers import BaseBackbone, to_map, to_tokens

NORM_EPS = 1e-6


class Downsample(nn.Module):
    """3x3 convolutions of stride 2, then LayerNorm over channels; (B, C, H, W) -> tokens, size."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        convs = (nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(channels, channels[1:]))
        self.proj = nn.Sequential(*convs)
        self.norm = nn.LayerNorm(channels[-1], eps=NORM_EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2:]


class ConvClustering(nn.Module):
    """Cluster logits from a depthwise convolution and two pointwise layers."""

    def __init__(self, dim: int, num_clusters: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.proj = nn.Linear(dim, dim)
        self.assign = nn.Linear(dim, num_clusters, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> Z (B, M, N), each row a distribution over the N positions."""
        x = to_tokens(F.gelu(self.dwconv(to_map(x, size))))
        x = F.gelu(self.proj(x))
        # W x^T rather than (x W^T)^T: the softmax then runs along contiguous memory.
        return (self.assign.weight @ x.transpose(1, 2)).softmax(dim=-1)


CLUSTERINGS = {'conv': ConvClustering}


class PaCaAttention(nn.Module):
    """Multi-head attention from tokens to clusters, or to the tokens when there are none.

    Args:
        dim: Channels C.
        num_heads: Heads h.
        num_clusters: M of the stage; 0 means plain attention.
        clustering: The module that assigns positions to clusters; ``None`` where the block reuses
            the assignment of an earlier block.
    """

    def __init__(
        self, dim: int, num_heads: int, num_clusters: int, clustering: nn.Module | None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.clustering = clustering
        self.cluster_norm = nn.LayerNorm(dim, eps=NORM_EPS) if num_clusters else None
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, size: tuple[int, int], assignment: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, C) and Z (B, M, N) of the stage so far -> tokens and the Z in force."""
        context = x
        if self.cluster_norm is not None:
            if self.clustering is not None:
                assignment = self.clustering(x, size)
            context = self.cluster_norm(assignment @ x)  # (B, M, C)
        q, k, v = (
            t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, L, C) -> (B, h, L, d)
            for t in (self.q(x), self.k(context), self.v(context))
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2)), assignment


class MLP(nn.Module):
    """Pointwise expansion, a depthwise 3x3 convolution with a shortcut, GELU, projection."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.fc1(x)
        x = to_tokens(self.dwconv(to_map(x, size))) + x
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, attn: PaCaAttention, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, size: tuple[int, int], assignment: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        y, assignment = self.attn(self.norm1(x), size, assignment)
        x = x + self.drop_path(y)
        x = x + self.drop_path(self.mlp(self.norm2(x), size))
        return x, assignment


class Stage(nn.Module):
    """Downsampling, the blocks, and a LayerNorm whose output is both feature and next input."""

    def __init__(self, downsample: Downsample, blocks: Sequence[Block], dim: int) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, with_cp: bool) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H', W'), strided as the downsampling says."""
        x, size = self.downsample(x)
        assignment = None
        for block in self.blocks:
            if with_cp and torch.is_grad_enabled():
                x, assignment = checkpoint(block, x, size, assignment, use_reentrant=False)
            else:
                x, assignment = block(x, size, assignment)
        return to_map(self.norm(x), size)


@MODELS.register_module()
class PaCaViT(BaseBackbone):
    """PaCa-ViT backbone: four stages at strides 4, 8, 16, 32.

    Args:
        arch: A name in ``arch_zoo``, or a dict with the keys of its rows.
        in_channels: Channels of the image.
        clusters: M per stage, 0 for plain attention. The paper: 100 for ImageNet and COCO, 200 for
            ADE20K.
        clustering: How cluster logits are computed, a key of ``CLUSTERINGS``.
        drop_path_rate: Stochastic depth of the last block; the first has 0, linear in between.
        out_indices: Stages to return; negative counts from the end.
        frozen_stages: 0 freezes the stem, k the stem and the first k stages; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training (this variant has none).
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` or ``None``.

    Raises:
        ValueError: For an unknown arch, clustering or stage index, or lists that do not fit.

    Source: paper, Sec. 3 and Table 7; every LayerNorm has eps 1e-6, as in the released code.
    """

    # fmt: off
    arch_zoo = {
        'tiny':  dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(2, 2, 4, 2),  mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'small': dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(3, 3, 10, 3), mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'base':  dict(embed_dims=(96, 192, 384, 512), num_heads=(2, 4, 8, 16), depths=(3, 3, 18, 3), mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
    }
    # fmt: on

    may_change_shape = r'\.clustering\.assign\.'  # M is 100 in ImageNet files, 200 on ADE20K

    def __init__(
        self,
        arch: str | dict = 'small',
        in_channels: int = 3,
        clusters: Sequence[int] = (100, 100, 100, 0),
        clustering: str = 'conv',
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        arch = self.get_arch(arch)
        dims, heads, depths = arch['embed_dims'], arch['num_heads'], arch['depths']
        super().__init__(len(depths), out_indices, frozen_stages, norm_eval, init_cfg)
        per_stage = dict(arch, clusters=clusters)
        if len({len(values) for values in per_stage.values()}) > 1:
            lengths = {name: len(values) for name, values in per_stage.items()}
            raise ValueError(f'PaCaViT needs one value per stage in each list; got {lengths}')
        if any(dim % h for dim, h in zip(dims, heads)):
            raise ValueError(f'embed_dims {dims} are not divisible by num_heads {heads}')
        if clustering not in CLUSTERINGS:
            raise ValueError(
                f"unknown clustering '{clustering}'; known are {', '.join(CLUSTERINGS)}"
            )
        self.with_cp = with_cp
        self.depths = tuple(depths)
        last = max(sum(depths) - 1, 1)
        drop_paths = iter([drop_path_rate * i / last for i in range(sum(depths))])

        self.stages = nn.ModuleList()
        for i, (dim, num_heads, depth, mlp_ratio, num_clusters) in enumerate(
            zip(dims, heads, depths, arch['mlp_ratios'], clusters)
        ):
            if i == 0:
                downsample = Downsample(in_channels, dim // 2, dim)
            else:
                downsample = Downsample(dims[i - 1], dim)
            blocks = []
            for j in range(depth):
                owns_clustering = num_clusters and j == 0
                attn = PaCaAttention(
                    dim,
                    num_heads,
                    num_clusters,
                    CLUSTERINGS[clustering](dim, num_clusters) if owns_clustering else None,
                )
                blocks.append(Block(dim, attn, mlp_ratio, next(drop_paths)))
            self.stages.append(Stage(downsample, blocks, dim))
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, in_channels, H, W) -> one (B, C, H/s, W/s) per out index, channels_last."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x, self.with_cp)
            maps.append(x)
        return tuple(maps[i] for i in self.out_indices)

    def init_layer(self, module: nn.Module) -> None:
        """Truncated normal for linear layers, fan-out normal for convolutions."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if getattr(module, 'bias', None) is not None:
            nn.init.zeros_(module.bias)

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.stages[0].downsample, *self.stages[: self.frozen_stages]]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Where a parameter lies, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What precedes the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            (layer, number of layers): 0 is the stem, then the blocks from 1, then the rest.
        """
        num_layers = sum(self.depths) + 2
        name = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or name[0] != 'stages':
            return num_layers - 1, num_layers
        stage = int(name[1])
        before = sum(self.depths[:stage])
        if name[2] == 'blocks':
            return before + int(name[3]) + 1, num_layers
        if name[2] == 'downsample':  # learns with the block it feeds; the first one is the stem
            return (before + 1 if stage else 0), num_layers
        return before + self.depths[stage], num_layers  # the norm learns with the last block

"""PaCa-ViT: patch-to-cluster attention (Grainger et al., CVPR 2023).

https://arxiv.org/abs/2203.11987. The authors' code is at github.com/iVMCL/PaCaViT (MIT).

Plain attention compares N patches with N patches. Here every patch attends to M learned clusters
instead, so the cost is linear in N:

    Z = softmax_N(f(X))            (M, N)  each cluster is a distribution over the positions
    C = LayerNorm(Z X)             (M, C)  the clusters
    Y = softmax(Q(X) K(C)^T / sqrt(d)) V(C)

f is a small network inside a stage's blocks ("onsite"), or a ConvMixer beside the whole model, the
teacher, that computes the Z of all four stages from the stem's output ("external").

Axis legend: B batch, N = H*W tokens, M clusters, C channels, h heads, d = C/h.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath, LayerScale
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from ..registry import MODELS
from .base import BATCH_NORM, BaseBackbone
from .feed_forward import MLP
from .fused import chain
from .layers import assign_positions, run_block, to_map, to_tokens
from .paca_teacher import Teacher

NORM_EPS = 1e-6


def find_content(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W), false from where an image is zero up to its right or lower edge.

    That is where the data preprocessors pad, for they normalize first. An image of nothing but
    zeros counts as content.
    """
    filled = (image != 0).any(dim=1)
    rows, columns = (
        filled.any(dim).int().flip(1).cumsum(dim=1).flip(1) > 0  # up to the last one
        for dim in (2, 1)
    )
    content = rows[:, :, None] & columns[:, None, :]
    return content | ~content.any(dim=(1, 2), keepdim=True)


class ConvClustering(nn.Module):
    """Cluster logits from a depthwise convolution and two pointwise layers."""

    def __init__(self, dim: int, num_clusters: int, kernel_size: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.proj = nn.Linear(dim, dim)
        self.assign = nn.Linear(dim, num_clusters, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """(B, N, C) -> Z (B, M, N), each row a distribution over the N positions."""
        x = to_tokens(chain(to_map(x, size), self.dwconv, F.gelu))
        return assign_positions(chain(x, self.proj, F.gelu), self.assign, valid)


class MLPClustering(nn.Module):
    """Cluster logits from each token alone: two linear layers."""

    def __init__(self, dim: int, num_clusters: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden_dim)
        self.assign = nn.Linear(hidden_dim, num_clusters)

    def forward(self, x: Tensor, size: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """(B, N, C) -> Z (B, M, N), each row a distribution over the N positions."""
        return assign_positions(chain(x, self.proj, F.gelu), self.assign, valid)


class LinearClustering(nn.Module):
    """Cluster logits from each token alone: one linear layer."""

    def __init__(self, dim: int, num_clusters: int) -> None:
        super().__init__()
        self.assign = nn.Linear(dim, num_clusters, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """(B, N, C) -> Z (B, M, N), each row a distribution over the N positions."""
        return assign_positions(x, self.assign, valid)


CLUSTERINGS = {'conv': ConvClustering, 'mlp': MLPClustering, 'linear': LinearClustering}


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


class PaCaAttention(nn.Module):
    """Multi-head attention from tokens to clusters, or to the tokens when there are none.

    Args:
        dim: Channels C.
        num_heads: Heads h.
        num_clusters: M of the stage; 0 means plain attention.
        clustering: The module that assigns positions to clusters; ``None`` where the block is given
            the assignment of an earlier block or of the teacher.
        cluster_norm: Normalize the clusters.
        cluster_pos_embed: Add a learned vector to each cluster, before the norm.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_clusters: int,
        clustering: nn.Module | None,
        cluster_norm: bool = True,
        cluster_pos_embed: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_clusters = num_clusters
        self.clustering = clustering
        self.cluster_norm = None
        if num_clusters:
            self.cluster_norm = nn.LayerNorm(dim, eps=NORM_EPS) if cluster_norm else nn.Identity()
        self.cluster_pos_embed = None
        if num_clusters and cluster_pos_embed:
            self.cluster_pos_embed = nn.Parameter(torch.zeros(1, num_clusters, dim))
            nn.init.trunc_normal_(self.cluster_pos_embed, std=0.02)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, size: tuple[int, int], assignment: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, C) and Z (B, M, N) of the stage so far -> tokens and the Z in force."""
        context, mask = x, None
        if self.num_clusters:
            if self.clustering is not None:
                assignment = self.clustering(x, size, valid)
            context = assignment @ x  # (B, M, C)
            if self.cluster_pos_embed is not None:
                context = context + self.cluster_pos_embed
            context = self.cluster_norm(context)
        elif valid is not None:
            mask = valid[:, None]  # (B, 1, N) -> (B, 1, 1, N)
        q, k, v = (
            t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, L, C) -> (B, h, L, d)
            for t in (chain(x, self.q), chain(context, self.k), chain(context, self.v))
        )
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return chain(x.transpose(1, 2).flatten(2), self.proj), assignment


class Block(nn.Module):
    """Transformer block: norms before its two branches, after them, or both."""

    def __init__(
        self,
        dim: int,
        attn: PaCaAttention,
        mlp: MLP,
        drop_path: float,
        norm_before: bool,
        norm_after: bool,
        layer_scale: float | None,
    ) -> None:
        super().__init__()

        def norm(used: bool) -> nn.Module:
            return nn.LayerNorm(dim, eps=NORM_EPS) if used else nn.Identity()

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(dim, scale=layer_scale)

        self.norm1 = norm(norm_before)
        self.attn = attn
        self.norm1_after = norm(norm_after)
        self.scale1 = scale()
        self.norm2 = norm(norm_before)
        self.mlp = mlp
        self.norm2_after = norm(norm_after)
        self.scale2 = scale()
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, size: tuple[int, int], assignment: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        y, assignment = self.attn(self.norm1(x), size, assignment, valid)
        x = x + self.drop_path(self.scale1(self.norm1_after(y)))
        y = self.mlp(self.norm2(x), size)
        x = x + self.drop_path(self.scale2(self.norm2_after(y)))
        return x, assignment


class Stage(nn.Module):
    """Downsampling, the blocks, and a LayerNorm whose output is both feature and next input.

    Args:
        downsample: Makes the stage's tokens.
        blocks: What they pass through.
        dim: Channels C.
        pos_embed_size: (height, width) of a learned position table added before the first block;
            for tokens of another size it is resampled. ``None`` for none.
    """

    def __init__(
        self,
        downsample: Downsample,
        blocks: Sequence[Block],
        dim: int,
        pos_embed_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.pos_embed_size = pos_embed_size
        self.pos_embed = None
        if pos_embed_size is not None:
            height, width = pos_embed_size
            self.pos_embed = nn.Parameter(torch.zeros(1, height * width, dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(
        self,
        x: Tensor,
        size: tuple[int, int],
        assignment: Tensor | None,
        extra: Tensor | None,
        valid: Tensor | None,
        with_cp: bool,
    ) -> Tensor:
        """The downsampled tokens (B, N, C) -> the stage's map (B, C, H, W).

        Args:
            x: What ``downsample`` makes of the image or the previous stage's map.
            size: (H, W) of the tokens.
            assignment: The teacher's Z (B, M, N); ``None`` without one.
            extra: The teacher's tokens (B, N, C), added before the norm; ``None`` without one.
            valid: (B, 1, N), positions that may join clusters; ``None`` for all.
            with_cp: Recompute blocks in the backward pass.
        """
        if self.pos_embed is not None:
            x = x + self.get_pos_embed(size)
        for block in self.blocks:
            x, assignment = run_block(block, with_cp, x, size, assignment, valid)
        return to_map(self.norm(x if extra is None else x + extra), size)

    def get_pos_embed(self, size: tuple[int, int]) -> Tensor:
        """The position table (1, N, C) for tokens of this (height, width)."""
        if tuple(size) == self.pos_embed_size:
            return self.pos_embed
        table = to_map(self.pos_embed, self.pos_embed_size)
        return to_tokens(F.interpolate(table, size, mode='bilinear', align_corners=True))


@MODELS.register_module()
class PaCaViT(BaseBackbone):
    """PaCa-ViT backbone: four stages at strides 4, 8, 16, 32.

    Args:
        arch: A name in ``arch_zoo``, or a dict with the keys of its rows; with ``teacher_depths``
            the clusters come from a teacher.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; the first has 0, linear in between.
        out_indices: Stages to return; negative counts from the end.
        frozen_stages: 0 freezes the stem, k the stem, the first k stages, and the teacher that
            assigns their clusters; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training (only a teacher has them).
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` or ``None``.
        clusters: M per stage, 0 for plain attention. By default the paper's for ImageNet and COCO:
            100 with plain attention in stage 4, 100 in every stage with a teacher. ADE20K has 200.
        clustering: How cluster logits are computed, a key of ``CLUSTERINGS``.
        clustering_interval: 0 clusters once per stage, in its first block; k in every k-th block.
            One number, or one per stage.
        clustering_kernel_size: Of conv clustering; one number, or one per stage.
        cluster_norm: Normalize the clusters.
        cluster_pos_embed: Add a learned vector to each cluster.
        mlp_dwconv: Depthwise convolution inside the MLP.
        mlp_shortcut: Shortcut around that convolution.
        post_norm: Norms after the branches instead of before them.
        sub_ln: Norms both before and after the branches (arXiv 2210.06423).
        layer_scale: Initial value of a learned scale per channel of each branch; ``None`` for none.
        pos_embed: Learned position table in each stage, resampled where the image has another size.
        img_size: Image size, or (height, width), that the tables of ``pos_embed`` are made for.
        mask_padding: Keep zero padding at the right and lower border out of the clusters, and of
            the keys where a stage has none.
        norm_cfg: The teacher's batch norm.

    Raises:
        ValueError: For an unknown arch, clustering or stage index, or lists that do not fit.

    Source: paper, Sec. 3 and Table 7; every LayerNorm has eps 1e-6, as in the released code.
    """

    # fmt: off
    arch_zoo = {
        'tiny':          dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(2, 2, 4, 2),  mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'small':         dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(3, 3, 10, 3), mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'base':          dict(embed_dims=(96, 192, 384, 512), num_heads=(2, 4, 8, 16), depths=(3, 3, 18, 3), mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'tiny_teacher':  dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(2, 2, 2, 2),  mlp_ratios=(4, 4, 4, 4), teacher_depths=(2, 2, 2, 2)),  # noqa: E501
        'small_teacher': dict(embed_dims=(96, 192, 320, 384), num_heads=(2, 4, 8, 16), depths=(3, 3, 7, 3),  mlp_ratios=(4, 4, 4, 4), teacher_depths=(2, 2, 2, 2)),  # noqa: E501
        'base_teacher':  dict(embed_dims=(96, 192, 384, 512), num_heads=(2, 4, 8, 16), depths=(3, 3, 16, 3), mlp_ratios=(4, 4, 4, 4), teacher_depths=(2, 2, 4, 2)),  # noqa: E501
    }
    # fmt: on

    # M is 100 in ImageNet files, 200 on ADE20K
    may_change_shape = r'\.clustering\.assign\.|\.cluster_pos_embed$|^teacher\.assigns\.'

    def __init__(
        self,
        arch: str | dict = 'small',
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        *,
        clusters: Sequence[int] | None = None,
        clustering: str = 'conv',
        clustering_interval: int | Sequence[int] = 0,
        clustering_kernel_size: int | Sequence[int] = 7,
        cluster_norm: bool = True,
        cluster_pos_embed: bool = False,
        mlp_dwconv: bool = True,
        mlp_shortcut: bool = True,
        post_norm: bool = False,
        sub_ln: bool = False,
        layer_scale: float | None = None,
        pos_embed: bool = False,
        img_size: int | tuple[int, int] = 224,
        mask_padding: bool = False,
        norm_cfg: dict = BATCH_NORM,
    ) -> None:
        arch = self.get_arch(arch)
        dims, heads, depths = arch['embed_dims'], arch['num_heads'], arch['depths']
        strides = [4 * 2**i for i in range(len(dims))]
        super().__init__(dims, strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        has_teacher = 'teacher_depths' in arch
        per_stage = dict(
            arch,
            clusters=clusters or (100,) * (len(depths) - 1) + (100 if has_teacher else 0,),
            clustering_interval=_per_stage(clustering_interval, len(depths)),
            clustering_kernel_size=_per_stage(clustering_kernel_size, len(depths)),
        )
        self.check_per_stage(per_stage)
        if any(dim % h for dim, h in zip(dims, heads)):
            raise ValueError(f'embed_dims {dims} are not divisible by num_heads {heads}')
        if clustering not in CLUSTERINGS:
            raise ValueError(
                f"unknown clustering '{clustering}'; known are {', '.join(CLUSTERINGS)}"
            )
        if has_teacher and 0 in per_stage['clusters']:
            raise ValueError(f'a teacher needs clusters in every stage; got {clusters}')
        self.mask_padding = mask_padding
        clusters = per_stage['clusters']
        drop_paths = iter(calculate_drop_path_rates(drop_path_rate, depths))
        image = (img_size, img_size) if isinstance(img_size, int) else img_size

        self.stages = nn.ModuleList()
        for i, dim in enumerate(dims):
            hidden_dim = int(dim * arch['mlp_ratios'][i])
            interval = per_stage['clustering_interval'][i]
            kernel_size = per_stage['clustering_kernel_size'][i]
            options = dict(conv=[kernel_size], mlp=[hidden_dim], linear=[])[clustering]
            blocks = []
            for j in range(depths[i]):
                cluster_layers = None
                if clusters[i] and not has_teacher and not (j % interval if interval else j):
                    cluster_layers = CLUSTERINGS[clustering](dim, clusters[i], *options)
                attn = PaCaAttention(
                    dim, heads[i], clusters[i], cluster_layers, cluster_norm, cluster_pos_embed
                )
                mlp = MLP(dim, hidden_dim, mlp_dwconv, mlp_shortcut)
                block = Block(
                    dim,
                    attn,
                    mlp,
                    next(drop_paths),
                    norm_before=sub_ln or not post_norm,
                    norm_after=sub_ln or post_norm,
                    layer_scale=layer_scale,
                )
                blocks.append(block)
            channels = (dims[i - 1], dim) if i else (in_channels, dim // 2, dim)
            table = tuple(side // 4 // 2**i for side in image) if pos_embed else None
            self.stages.append(Stage(Downsample(*channels), blocks, dim, table))
        self.teacher = None
        if has_teacher:
            self.teacher = Teacher(dims, arch['teacher_depths'], clusters, norm_cfg)
        self.freeze()

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        """As every backbone's."""
        x = x.contiguous(memory_format=torch.channels_last)
        valid = [None] * len(self.stages)
        if self.mask_padding:  # a token is valid where its top left pixel is: (B, 1, N) per stage
            content = find_content(x)
            strides = [info['reduction'] for info in self.feature_info]
            valid = [content[:, ::s, ::s].flatten(1)[:, None] for s in strides]
        lessons = [(None, None)] * len(self.stages)
        maps = {}
        for i, stage in zip(range(max(indices) + 1), self.stages):
            tokens, size = stage.downsample(x)
            if i == 0 and self.teacher is not None:  # it teaches all stages from the stem's output
                lessons = self.teacher(to_map(tokens, size), valid)
            x = stage(tokens, size, *lessons[i], valid[i], self.with_cp)
            if i in indices:
                maps[i] = x
        return maps

    def frozen_modules(self) -> list[nn.Module]:
        teacher = [self.teacher] if self.teacher is not None and self.frozen_stages > 0 else []
        return super().frozen_modules() + teacher

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As every backbone's; a teacher's layer learns with the first block of its stage."""
        teacher = f'{prefix}teacher.'
        if param_name.startswith(teacher):
            stage = param_name.removeprefix(teacher).split('.')[1]
            param_name = f'{prefix}stages.{stage}.blocks.0'
        return super().get_layer_depth(param_name, prefix)


def _per_stage(value: int | Sequence[int], num_stages: int) -> Sequence[int]:
    return (value,) * num_stages if isinstance(value, int) else value

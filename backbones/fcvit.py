"""FCViT: "A Close Look at Spatial Modeling: From Attention to Convolution" (Ma et al., 2022).

https://arxiv.org/abs/2212.12552. The authors' code is at github.com/ma-xu/FCViT (Apache-2.0).

A convolutional network in the form of a transformer. Instead of comparing all positions with each
other, each compares itself with the image's mean, the global context g:

    sim_h(n) = <x_hn, g_h> / sqrt(d), standardized over heads and positions of the image,
               then scaled and shifted per head
    x_n     <- x_n + sim_h(n) * bottleneck(g)

and a large depthwise convolution mixes neighbours.

Axis legend: B batch, N = H*W positions, C channels, h heads, d = C/h.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath, LayerScale
from timm.layers import GroupNorm1, calculate_drop_path_rates
from torch import Tensor, nn

from ..registry import MODELS
from .base import BATCH_NORM, BaseBackbone
from .feed_forward import feed_forward
from .fused import chain, is_open
from .layers import run_block, to_map, to_tokens

STD_EPS = 1e-5  # added to the standard deviation of the similarities
GATE_KERNEL, GATE_REDUCTION = 3, 8  # of spatial attention
CHANNEL_KERNELS = (3, 5)  # of channel attention's convolutions along the channels


class MapNorm(GroupNorm1):
    """Group norm of one group: over the channels and positions of an image together.

    PyTorch's kernel for channels_last maps adds all of an image up in float32, 5e-6 off for a large
    one; the statistics of its layer norm, taken without gradients, are 1e-7 off.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if x.is_cuda:
            return self.scale(x, *self.measure_on_gpu(x))
        if torch.is_grad_enabled() or not is_open(x):
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).flatten(1)
        _, mean, rstd = torch.native_layer_norm(rows, rows.shape[1:], None, None, self.eps)
        return self.scale(x, mean, rstd)

    def measure_on_gpu(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """An image's mean and inverse deviation (B, 1), in float32 at least.

        PyTorch's kernel has one block of threads for an image, and lays the map out anew.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        var, mean = torch.var_mean(x.to(wide), dim=(1, 2, 3), correction=0)
        return mean[:, None], (var + self.eps).rsqrt()[:, None]

    def scale(self, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """(x - mean) * rstd * weight + bias, in one pass; autocast gives float32, as PyTorch's."""
        scale = self.weight * rstd  # (B, C)
        shift = self.bias - mean * scale
        dtype = mean.dtype if torch.is_autocast_enabled(x.device.type) else x.dtype
        scale, shift = (t.to(dtype)[..., None, None] for t in (scale, shift))
        return torch.addcmul(shift, x.to(dtype), scale)


def depthwise(dim: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)


class GlobalContext(nn.Module):
    """Adds the image's transformed mean to each position, as far as the position resembles it.

    Args:
        dim: Channels C.
        num_heads: Heads h.
        reduction: The bottleneck has C / reduction channels.
        compete: In the bottleneck the larger of two candidates wins ("Compete to compute", NeurIPS
            2013); otherwise GELU.
        weighted: Weigh by similarity; otherwise every position gets the context alike.
    """

    def __init__(
        self, dim: int, num_heads: int, reduction: int, compete: bool, weighted: bool
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.compete = compete
        self.weighted = weighted
        self.fc1 = nn.Linear(dim, dim // reduction * (2 if compete else 1))
        self.fc2 = nn.Linear(dim // reduction, dim)
        if weighted:
            self.scale = (dim // num_heads) ** -0.5
            self.head_weight = nn.Parameter(torch.ones(num_heads))
            self.head_bias = nn.Parameter(torch.zeros(num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = to_tokens(x)
        mean = tokens.mean(dim=1)  # (B, C)
        context = self.fc1(mean)
        if self.compete:
            context = context.unflatten(1, (2, -1)).amax(dim=1)
        else:
            context = F.gelu(context)
        context = self.fc2(context)
        if not self.weighted:
            return x + context[:, :, None, None]
        similarity = self.get_similarity(tokens, mean)
        if self.has_rows(tokens):
            tokens = torch.baddbmm(tokens, similarity, self.to_rows(context))
        else:
            heads, context = self.to_heads(tokens), self.to_heads(context[:, None])
            tokens = torch.addcmul(heads, similarity[..., None], context.to(heads.dtype)).flatten(2)
        return to_map(tokens, x.shape[2:])

    def get_similarity(self, tokens: Tensor, mean: Tensor) -> Tensor:
        """(B, N, C) and their mean (B, C) -> standardized similarity (B, N, h)."""
        mean = self.scale * mean
        if self.has_rows(tokens):
            similarity = tokens @ self.to_rows(mean).transpose(1, 2)
        else:
            heads = self.to_heads(tokens), self.to_heads(mean)
            similarity = torch.einsum('bnhd,bhd->bnh', *heads)
        std, center = torch.std_mean(similarity, dim=(1, 2), keepdim=True)
        scale = self.head_weight / (std + STD_EPS)  # (B, 1, h)
        return torch.addcmul(self.head_bias - center * scale, similarity, scale)

    def to_heads(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., h, d)."""
        return x.unflatten(-1, (self.num_heads, -1))

    def to_rows(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, h, C), a row for each head, zero but for the head's channels."""
        rows = torch.eye(self.num_heads, dtype=x.dtype)
        rows = rows.repeat_interleave(x.shape[1] // self.num_heads, dim=1)
        return x[:, None] * rows

    def has_rows(self, tokens: Tensor) -> bool:
        """Whether one product for all heads is quicker than one for each: its gradients are."""
        return torch.is_grad_enabled() and is_open(tokens)


class LocalMixer(nn.Module):
    """Global context, a large depthwise convolution, and a bottleneck of 1x1 convolutions."""

    def __init__(self, dim: int, context: nn.Module, kernel_size: int, hidden_dim: int | None):
        super().__init__()
        self.context = context
        self.dwconv = depthwise(dim, kernel_size)
        if hidden_dim is None:
            self.fc = nn.Conv2d(dim, dim, 1)
        else:
            self.fc = nn.Sequential(
                nn.Conv2d(dim, hidden_dim, 1), nn.GELU(), nn.Conv2d(hidden_dim, dim, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        return chain(self.context(x), self.dwconv, self.fc, F.gelu)


class SpatialAttention(nn.Module):
    """Gates each channel at each position by what lies around it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            depthwise(dim, GATE_KERNEL),
            nn.Conv2d(dim, dim // GATE_REDUCTION, 1),
            nn.GELU(),
            nn.Conv2d(dim // GATE_REDUCTION, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * chain(x, self.gate)


class ChannelAttention(nn.Module):
    """Adds to each channel what two 1-D convolutions along the channels make of their means."""

    def __init__(self) -> None:
        super().__init__()
        first, second = (nn.Conv1d(1, 1, k, padding=k // 2) for k in CHANNEL_KERNELS)
        self.convs = nn.Sequential(first, nn.GELU(), second)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.gelu(x).mean(dim=(2, 3))  # (B, C)
        return x + self.convs(mean[:, None])[:, 0, :, None, None]


class ChannelMixer(nn.Module):
    """1x1 convolution, depthwise 3x3, GELU, 1x1 convolution."""

    def __init__(self, dim: int, hidden_dim: int, dwconv: bool, channel_attention: bool) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.dwconv = depthwise(hidden_dim, 3) if dwconv else None
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        self.attention = ChannelAttention() if channel_attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = feed_forward(to_tokens(x), size, self.fc1, self.dwconv, self.fc2)
        return self.attention(to_map(x, size))


class Block(nn.Module):
    """Token mixer and channel mixer, each normalized before and scaled after."""

    def __init__(
        self,
        dim: int,
        token_mixer: nn.Module,
        channel_mixer: nn.Module,
        layer_scale: float | None,
        drop_path: float,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            if layer_scale is None:
                return nn.Identity()
            return LayerScale(dim, data_format='channels_first', scale=layer_scale)

        self.norm1 = MapNorm(dim)  # over channels and positions together
        self.token_mixer = token_mixer
        self.scale1 = scale()
        self.norm2 = MapNorm(dim)
        self.channel_mixer = channel_mixer
        self.scale2 = scale()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.scale1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x))))


class Stage(nn.Module):
    """A strided convolution with batch norm, and the blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H', W')."""
        x = chain(x, self.downsample)
        for block in self.blocks:
            x = run_block(block, with_cp, x)
        return x


@MODELS.register_module()
class FCViT(BaseBackbone):
    """FCViT backbone: four stages at strides 4, 8, 16, 32; each returned map has its own norm.

    Args:
        arch: A name in ``arch_zoo``, or a dict with the keys of its rows.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; the first has 0, linear in between.
        out_indices: Stages to return; negative counts from the end.
        frozen_stages: 0 freezes the stem, k the stem and the first k stages; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` or ``None``.
        num_heads: Heads of the global context.
        global_context: Add the global context at all.
        weighted_context: Weigh it by similarity, rather than add it everywhere alike.
        compete: Competition instead of GELU in the context's bottleneck.
        context_reduction: C over the channels of that bottleneck.
        num_mixers: How often a token mixer repeats context, convolution and bottleneck.
        kernel_size: Of the token mixer's depthwise convolutions.
        fc_reduction: C over the channels of the token mixer's bottleneck, which has at least 16; 1
            for one plain 1x1 convolution instead.
        spatial_attention: The paper's optional gate after the token mixer.
        channel_attention: The paper's optional attention after the channel mixer.
        mlp_dwconv: Depthwise convolution in the channel mixer.
        layer_scale: Initial scale of each branch: 1e-5 for ImageNet, 1e-6 for dense use; ``None``
            for none.
        norm_cfg: The batch norms after the strided convolutions.

    Raises:
        ValueError: For an unknown arch or stage index, or dimensions that do not fit.

    Source: paper, Sec. 3 and Table 1; group norms and batch norms have eps 1e-5.
    """

    # fmt: off
    arch_zoo = {
        'tiny': dict(embed_dims=(32, 64, 160, 320),  depths=(3, 3, 5, 2),  mlp_ratios=(8, 8, 4, 4)),
        'b12':  dict(embed_dims=(64, 128, 320, 512), depths=(2, 2, 6, 2),  mlp_ratios=(8, 8, 4, 4)),
        'b24':  dict(embed_dims=(64, 128, 320, 512), depths=(4, 4, 12, 4), mlp_ratios=(8, 8, 4, 4)),
        'b48':  dict(embed_dims=(64, 128, 320, 512), depths=(8, 8, 24, 8), mlp_ratios=(8, 8, 4, 4)),
    }
    # fmt: on

    may_be_absent = r'^norm\d\.'  # a classifier has only the last one, dense use one per map

    def __init__(
        self,
        arch: str | dict = 'b12',
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        *,
        num_heads: int = 8,
        global_context: bool = True,
        weighted_context: bool = True,
        compete: bool = True,
        context_reduction: int = 8,
        num_mixers: int = 2,
        kernel_size: int = 11,
        fc_reduction: int = 8,
        spatial_attention: bool = False,
        channel_attention: bool = False,
        mlp_dwconv: bool = True,
        layer_scale: float | None = 1e-5,
        norm_cfg: dict = BATCH_NORM,
    ) -> None:
        arch = self.get_arch(arch)
        dims, depths = arch['embed_dims'], arch['depths']
        strides = [4 * 2**i for i in range(len(dims))]
        super().__init__(dims, strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if any(dim % n for dim in dims for n in (num_heads, context_reduction)):
            raise ValueError(
                f'embed_dims {dims} are not divisible by num_heads={num_heads} and '
                f'context_reduction={context_reduction}'
            )
        if num_heads < 2:  # a map of one position and one head has no standard deviation
            raise ValueError(f'num_heads={num_heads}; the global context needs at least 2')
        drop_paths = iter(calculate_drop_path_rates(drop_path_rate, depths))

        def local_mixer(dim: int) -> LocalMixer:
            context = nn.Identity()
            if global_context:
                context = GlobalContext(
                    dim, num_heads, context_reduction, compete, weighted_context
                )
            hidden_dim = max(dim // fc_reduction, 16) if fc_reduction > 1 else None
            return LocalMixer(dim, context, kernel_size, hidden_dim)

        self.stages = nn.ModuleList()
        for i, dim in enumerate(dims):
            blocks = []
            for _ in range(depths[i]):
                mixers = [local_mixer(dim) for _ in range(num_mixers)]
                if spatial_attention:
                    mixers.append(SpatialAttention(dim))
                channel_mixer = ChannelMixer(
                    dim, int(dim * arch['mlp_ratios'][i]), mlp_dwconv, channel_attention
                )
                blocks.append(
                    Block(dim, nn.Sequential(*mixers), channel_mixer, layer_scale, next(drop_paths))
                )
            if i == 0:
                conv = nn.Conv2d(in_channels, dim, 7, stride=4, padding=3)
            else:
                conv = nn.Conv2d(dims[i - 1], dim, 3, stride=2, padding=1)
            norm = build_norm_layer(norm_cfg, dim)[1]
            self.stages.append(Stage(nn.Sequential(conv, norm), blocks))
        for i in sorted(set(self.out_indices)):
            self.add_module(f'norm{i}', MapNorm(dims[i]))
        self.freeze()

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        """As every backbone's."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = {}
        for i, stage in zip(range(max(indices) + 1), self.stages):
            x = stage(x, self.with_cp)
            if i in indices:
                maps[i] = x
        return maps

    def finish(self, i: int, feature: Tensor) -> Tensor:
        """Each map that is returned has a norm of its own."""
        norm = getattr(self, f'norm{i}', None)
        return feature if norm is None else norm(feature)

"""GroupMixFormer: "Advancing Vision Transformers with Group-Mix Attention" (Ge et al., 2023).

https://arxiv.org/abs/2311.15157. The authors' code is at github.com/AILab-CVC/GroupMixFormer (MIT).

The channels of q, k and v are cut in five segments. Segment 0 stays as it is; segments 1, 2, 3 are
aggregated over windows of 3, 5, 7, so that their tokens stand for groups ("group proxies"). These
four attend to each other, with attention that is linear in N (softmax over the tokens of k):

    Y = (C/h)^-1/2 Q (softmax_N(K)^T V) + Q * dwconv(V)

Segment 4 of q, k and v is convolved together and bypasses the attention.

Axis legend: B batch, N = H*W tokens, C channels, S = C/5 segment width, h heads, d = 4C/5h.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from ..registry import MODELS
from .base import BATCH_NORM, BaseBackbone
from .feed_forward import MLP, SLICE_BYTES
from .fused import (
    add_depthwise,
    chain,
    depthwise,
    depthwise_side_by_side,
    is_watched,
    join_windows,
    linear,
    may_fuse,
)
from .layers import run_block, to_map, to_tokens

NORM_EPS = 1e-6
NUM_SEGMENTS = 5
WINDOWS = (3, 5, 7)  # of the aggregators of segments 1, 2, 3
HEADS_PER_WINDOW = {3: 2, 5: 3, 7: 3}  # heads whose v passes a position encoding of that window
NUM_HEADS = sum(HEADS_PER_WINDOW.values())


def separable_conv(in_dim: int, out_dim: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Depthwise then pointwise convolution, neither with a bias."""
    return nn.Sequential(
        nn.Conv2d(in_dim, in_dim, kernel_size, stride, kernel_size // 2, groups=in_dim, bias=False),
        nn.Conv2d(in_dim, out_dim, 1, bias=False),
    )


def norm_act(norm_cfg: dict, dim: int) -> list[nn.Module]:
    """Batch norm and Hardswish."""
    return [build_norm_layer(norm_cfg, dim)[1], nn.Hardswish()]


class Aggregator(nn.Module):
    """Turns q, k, v into group proxies, and their last segment into what bypasses attention."""

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        width = dim // NUM_SEGMENTS
        self.segments = nn.ModuleList([nn.Sequential(*norm_act(norm_cfg, width))])
        for window in WINDOWS:
            conv = separable_conv(width, width, window)
            self.segments.append(nn.Sequential(conv, *norm_act(norm_cfg, width)))
        self.local_conv = separable_conv(3 * width, width, 3)
        self.local_norm = nn.LayerNorm(width)

    def forward(self, qkv: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, N, 3, 5, S) -> proxies of q, k, v (3, B, N, 4S), and the bypass (B, N, S)."""
        *segments, local = qkv.unbind(3)
        # A copy lays q, k, v of a segment out as a batch of 3B channels_last maps: they share the
        # aggregator, and its batch norm sees all three.
        batches = (to_map(x.movedim(2, 0).contiguous().flatten(0, 1), size) for x in segments)
        proxies = [to_tokens(chain(x, f)) for f, x in zip(self.segments, batches)]
        return torch.cat(proxies, dim=2).unflatten(0, (3, -1)), self.bypass(local.flatten(2), size)

    def bypass(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The last segment of q, k, v (B, N, 3S) -> (B, N, S)."""
        x = to_tokens(chain(to_map(x, size), self.local_conv))
        return F.hardswish(self.local_norm(x))

    def mix(self, i: int, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        """Segment i of q, k, v (B, N, 3S), side by side -> its proxies (B, N, 3, S).

        What mixes positions sees 3S channels, what mixes channels 3N positions.
        """
        first, *rest = self.segments[i]
        if i:
            conv, first = first
            qkv = to_tokens(depthwise(to_map(qkv, size), conv.weight.repeat(3, 1, 1, 1), None))
        x = to_map(qkv.unflatten(2, (3, -1)).flatten(1, 2), (size[0], 3 * size[1]))
        return to_tokens(chain(x, first, *rest)).unflatten(1, (-1, 3))

    @property
    def depthwise(self) -> list[nn.Module]:
        """The convolutions of segments 1, 2, 3 over windows."""
        return [f[0][0] for f in self.segments[1:]]


class ConvPosition(nn.Module):
    """Depthwise convolutions of v, head by head with its window: q times them encodes position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = [heads * dim // NUM_HEADS for heads in HEADS_PER_WINDOW.values()]
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, window, padding=window // 2, groups=width)
            for window, width in zip(HEADS_PER_WINDOW, widths)
        )

    def forward(self, v: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, 4S) -> (B, N, 4S)."""
        return to_tokens(depthwise_side_by_side(to_map(v, size), self.convs))


def split_heads(x: Tensor, num_heads: int = NUM_HEADS) -> Tensor:
    """(B, N, 4S) -> (B, h, N, d)."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


class GroupMixAttention(nn.Module):
    """Linear attention between group proxies, beside a local bypass (paper, Sec. 3.2)."""

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        self.scale = (dim // NUM_HEADS) ** -0.5  # of all C/h channels, as in the released code
        self.qkv = nn.Linear(dim, 3 * dim)
        self.aggregator = Aggregator(dim, norm_cfg)
        self.position = ConvPosition(dim - dim // NUM_SEGMENTS)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if self.may_split(x):
            return chain(self.attend_by_segment(x, size), self.proj)
        qkv = chain(x, self.qkv).unflatten(2, (3, NUM_SEGMENTS, -1))  # (B, N, 3, 5, S)
        (q, k, v), local = self.aggregator(qkv, size)  # (B, N, 4S), (B, N, S)
        position = self.position(v, size)
        heads, k, v = (split_heads(t) for t in (q, k, v))
        context = self.scale * (k.softmax(dim=2).transpose(2, 3) @ v)  # (B, h, d, d)
        y = (heads @ context).transpose(1, 2).flatten(2)  # (B, N, 4S)
        return chain(torch.cat([torch.addcmul(y, q, position), local], dim=2), self.proj)

    def attend_by_segment(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What the projection gets in :meth:`forward`, (B, N, C), with nothing wider on the way.

        A segment has heads of its own, and its q, k, v lie side by side: nothing needs to be moved.
        """
        weight, bias = (t.unflatten(0, (3, NUM_SEGMENTS, -1)) for t in self.qkv.parameters())
        out = torch.empty_like(x)
        *parts, bypass = out.chunk(NUM_SEGMENTS, dim=2)
        windows = zip(*(t.chunk(len(parts)) for t in join_windows(self.position.convs)))
        for i, (y, window) in enumerate(zip(parts, windows)):
            qkv = linear(x, weight[:, i].flatten(0, 1), bias[:, i].flatten())  # (B, N, 3S)
            q, k, v = self.aggregator.mix(i, qkv, size).unbind(2)  # (B, N, S)
            position = depthwise(to_map(v.contiguous(), size), *window)
            torch.mul(q, to_tokens(position), out=y)
            q, k, v, y = (split_heads(t, NUM_HEADS // len(parts)) for t in (q, k, v, y))
            # softmax_N(K)^T V is attention whose queries are the unit vectors.
            units = torch.eye(q.shape[3]).expand(*q.shape[:2], -1, -1)
            context = F.scaled_dot_product_attention(units, k, v, scale=1.0)
            for head in range(q.shape[1]):
                y[:, head].baddbmm_(q[:, head], context[:, head], alpha=self.scale)
        local = linear(x, weight[:, -1].flatten(0, 1), bias[:, -1].flatten())  # (B, N, 3S)
        bypass.copy_(self.aggregator.bypass(local, size))
        return out

    def may_split(self, x: Tensor) -> bool:
        """Whether q, k, v would be large, and nobody wants to see what passes between the parts."""
        return (
            3 * x.numel() * x.element_size() > 2 * SLICE_BYTES
            and may_fuse(x, self.qkv, *self.position.convs, *self.aggregator.depthwise)
            and not any(map(is_watched, (self.position, *self.aggregator.modules())))
        )


class Block(nn.Module):
    """Convolutional position encoding, then a pre-norm transformer block."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float, norm_cfg: dict) -> None:
        super().__init__()
        self.cpe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = GroupMixAttention(dim, norm_cfg)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = to_tokens(add_depthwise(to_map(x, size), self.cpe))
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x), size))


class Stage(nn.Module):
    """A separable convolution that may halve the size, and the blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H', W')."""
        x = chain(x, self.downsample)
        tokens, size = to_tokens(x), x.shape[2:]
        for block in self.blocks:
            tokens = run_block(block, with_cp, tokens, size)
        return to_map(tokens, size)


@MODELS.register_module()
class GroupMixFormer(BaseBackbone):
    """GroupMixFormer backbone: four stages at strides 4, 8, 16, 32.

    Any image size works: a stage has the size that its convolution gives, ceil(H/s) x ceil(W/s).

    Args:
        arch: A name in ``arch_zoo``, or a dict with the keys of its rows.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; the first has 0, linear in between.
        out_indices: Stages to return; negative counts from the end.
        frozen_stages: 0 freezes the stem, k the stem and the first k stages; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute blocks in the backward pass to save memory; batch norms then update their
            running statistics twice a step.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` or ``None``.
        final_norm: Batch norm of the last stage's map, which the classifier has and dense use, as
            published, has not.
        norm_cfg: The batch norms; ``dict(type='SyncBN')`` for small batches on several GPUs.

    Raises:
        ValueError: For an unknown arch or stage index, or dimensions that do not fit.

    Source: paper, Sec. 3 and Table 1. The released config of L has mlp_ratios (4, 4, 2, 2): it
    counts 71.8 M parameters where the paper says 70.3 M.
    """

    # fmt: off
    arch_zoo = {
        'miny':  dict(embed_dims=(40, 80, 160, 160),   depths=(3, 3, 12, 4),   mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'tiny':  dict(embed_dims=(80, 160, 200, 240),  depths=(4, 4, 12, 4),   mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'small': dict(embed_dims=(80, 160, 320, 320),  depths=(2, 4, 12, 4),   mlp_ratios=(4, 4, 4, 4)),  # noqa: E501
        'base':  dict(embed_dims=(200, 240, 320, 480), depths=(8, 8, 12, 8),   mlp_ratios=(2, 2, 4, 4)),  # noqa: E501
        'large': dict(embed_dims=(240, 320, 360, 480), depths=(8, 10, 30, 10), mlp_ratios=(4, 4, 2, 2)),  # noqa: E501
    }
    # fmt: on

    first = 'stem'
    may_be_absent = r'^norm\.'  # the classifier's

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
        final_norm: bool = False,
        norm_cfg: dict = BATCH_NORM,
    ) -> None:
        arch = self.get_arch(arch)
        dims, depths = arch['embed_dims'], arch['depths']
        strides = [4 * 2**i for i in range(len(dims))]
        super().__init__(dims, strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if any(dim % (NUM_SEGMENTS * NUM_HEADS) for dim in dims):
            raise ValueError(
                f'embed_dims {dims} are not divisible by {NUM_SEGMENTS} segments times '
                f'{NUM_HEADS} heads'
            )
        drop_paths = iter(calculate_drop_path_rates(drop_path_rate, depths))

        half = dims[0] // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, 2, 1),
            *norm_act(norm_cfg, half),
            nn.Conv2d(half, dims[0], 3, 2, 1),
            *norm_act(norm_cfg, dims[0]),
        )
        self.stages = nn.ModuleList()
        for i, (dim, mlp_ratio) in enumerate(zip(dims, arch['mlp_ratios'])):
            conv = separable_conv(dims[max(i - 1, 0)], dim, 3, stride=2 if i else 1)
            blocks = [Block(dim, mlp_ratio, next(drop_paths), norm_cfg) for _ in range(depths[i])]
            self.stages.append(Stage(nn.Sequential(conv, *norm_act(norm_cfg, dim)), blocks))
        self.norm = build_norm_layer(norm_cfg, dims[-1])[1] if final_norm else None
        self.freeze()

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        """As every backbone's."""
        x = chain(x.contiguous(memory_format=torch.channels_last), self.stem)
        maps = {}
        for i, stage in zip(range(max(indices) + 1), self.stages):
            x = stage(x, self.with_cp)
            if i in indices:
                maps[i] = x
        return maps

    def finish(self, i: int, feature: Tensor) -> Tensor:
        """The last map goes through the classifier's norm, if there is one."""
        is_last = i == len(self.stages) - 1
        return self.norm(feature) if is_last and self.norm is not None else feature

    def init_layer(self, module: nn.Module) -> None:
        """Truncated normal for linear layers; convolutions keep PyTorch's, as in the original."""
        if isinstance(module, nn.Linear):
            super().init_layer(module)

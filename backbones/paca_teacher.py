"""PaCa-ViT's teacher: a ConvMixer beside the model that assigns positions to its clusters.

"External" clustering of https://arxiv.org/abs/2203.11987 (see ``paca.py``): from the stem's output
a convolutional pyramid with a top-down path computes the Z of all four stages.

Axis legend: B batch, N = H*W tokens, M clusters, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from timm.layers import BlurPool2d
from torch import Tensor, nn

from .fused import chain
from .layers import assign_positions, to_tokens

KERNEL_SIZE = 7  # of the depthwise convolutions


class MixerLayer(nn.Module):
    """ConvMixer layer (arXiv 2201.09792): depthwise with a shortcut, then pointwise."""

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(dim, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=dim),
            nn.GELU(),
            build_norm_layer(norm_cfg, dim)[1],
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.GELU(), build_norm_layer(norm_cfg, dim)[1]
        )

    def forward(self, x: Tensor) -> Tensor:
        return chain(x + chain(x, self.depthwise), self.pointwise)


class Teacher(nn.Module):
    """ConvMixer pyramid with a top-down path that assigns positions to clusters in all stages.

    Args:
        dims: Channels per stage, those of the model it serves.
        depths: Mixer layers per stage.
        clusters: M per stage.
        norm_cfg: The batch norm.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        clusters: Sequence[int],
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(*(MixerLayer(dim, norm_cfg) for _ in range(depth)))
            for dim, depth in zip(dims, depths)
        )
        self.downsamples = nn.ModuleList(
            nn.Sequential(
                BlurPool2d(fine, filt_size=3, stride=1, pad_mode='constant'),
                nn.Conv2d(fine, coarse, 3, 2, 1),
                nn.GELU(),
                build_norm_layer(norm_cfg, coarse)[1],
            )
            for fine, coarse in zip(dims, dims[1:])
        )
        self.laterals = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(coarse, fine, 1), nn.GELU(), build_norm_layer(norm_cfg, fine)[1]
            )
            for fine, coarse in zip(dims, dims[1:])
        )
        self.fpns = nn.ModuleList(MixerLayer(dim, norm_cfg) for dim in dims[:-1])
        self.assigns = nn.ModuleList(nn.Linear(dim, m) for dim, m in zip(dims, clusters))

    def forward(self, x: Tensor, valid: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
        """The stem's map (B, C, H, W) -> Z (B, M, N) and tokens (B, N, C) of each stage."""
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(chain(x, self.downsamples[i - 1]) if i else x)
            maps.append(x)
        tops = maps[-1:]
        for fine, lateral, fpn in zip(maps[-2::-1], reversed(self.laterals), reversed(self.fpns)):
            up = F.interpolate(tops[0], fine.shape[2:], mode='bilinear', align_corners=False)
            tops.insert(0, fpn(fine + chain(up, lateral)))
        assignments = [
            assign_positions(to_tokens(top), assign, where)
            for top, assign, where in zip(tops, self.assigns, valid)
        ]
        return [(z, to_tokens(x)) for z, x in zip(assignments, maps)]

"""The PaCa segmentation head (Grainger et al., CVPR 2023).

https://arxiv.org/abs/2203.11987. The authors' code is at github.com/iVMCL/PaCaViT (MIT).

Four maps become one, X, at stride 4. Each of the K classes is a cluster of positions; every
position attends to the K clusters:

    Z = softmax_N(f(X))       (K, N)   f is trained to be a segmentation itself
    C = Z X                   (K, 4c)
    Y = softmax_K(Q(X) K(C)^T) V(C)

Axis legend: B batch, N = H*W positions, K classes, c channels of the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import accuracy
from mmseg.models.utils import resize
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ..backbones.layers import to_map, to_tokens
from ..registry import MODELS

CLASS_LOSS = dict(type='CrossEntropyLoss', avg_non_ignore=True)
CLUSTER_LOSS = dict(
    type='CrossEntropyLoss',
    loss_name='loss_cluster',
    loss_weight=0.4,
    avg_non_ignore=True,
)


@MODELS.register_module()
class PaCaSegHead(BaseDecodeHead):
    """Semantic segmentation by attention to one cluster per class.

    Works in mmseg's ``EncoderDecoder`` with any backbone (or neck) whose maps it is given; the
    losses are ``loss_ce``, ``acc_seg`` and, for the clusters, ``loss_cluster``, ``acc_cluster``.

    Args:
        in_channels: Channels of the maps chosen by ``in_index``, finest first.
        channels: Width c of the head.
        num_classes: K.
        in_index: Which of the backbone's maps are used.
        loss_decode: Loss of the class logits, or several.
        loss_cluster: Loss of the cluster logits against the labels.
        kwargs: Of mmseg's ``BaseDecodeHead``: ``norm_cfg``, ``dropout_ratio``, ...

    Raises:
        ValueError: When two losses have one name.

    Source: paper, Sec. 3.3; the attention has one head and no 1/sqrt(d), as in the released code.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        num_classes: int,
        in_index: Sequence[int] = (0, 1, 2, 3),
        loss_decode: dict | Sequence[dict] = CLASS_LOSS,
        loss_cluster: dict = CLUSTER_LOSS,
        **kwargs: object,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            input_transform='multiple_select',
            loss_decode=loss_decode,
            **kwargs,
        )
        self.loss_cluster = MMSEG_MODELS.build(loss_cluster)
        several = isinstance(self.loss_decode, nn.ModuleList)
        losses = self.loss_decode if several else [self.loss_decode]
        name = self.loss_cluster.loss_name
        if name in [loss.loss_name for loss in losses]:
            raise ValueError(
                f"loss_cluster and loss_decode are both called '{name}'; set loss_name"
            )
        in_channels = self.in_channels

        def layer(width: int, bias: bool | str = 'auto') -> ConvModule:
            return ConvModule(
                width, channels, 1, bias=bias, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
            )

        self.convs = nn.ModuleList(layer(width) for width in in_channels)
        total = channels * len(in_channels)
        self.q = layer(total)
        self.clustering = nn.Sequential(layer(total), nn.Conv2d(channels, num_classes, 1))
        self.k = layer(total, bias=True)
        self.v = layer(total, bias=True)
        self.proj = layer(channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The backbone's maps -> class logits (B, K, H, W) at the finest map's size."""
        return self.get_logits(inputs)[0]

    def get_logits(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The backbone's maps -> class logits and cluster logits, both (B, K, H, W)."""
        inputs = self._transform_inputs(inputs)
        size = inputs[0].shape[2:]
        maps = [
            resize(conv(x), size, mode='bilinear', align_corners=self.align_corners)
            for conv, x in zip(self.convs, inputs)
        ]
        x = torch.cat(maps, dim=1)  # (B, 4c, H, W)
        cluster_logits = self.clustering(x)
        assignment = cluster_logits.flatten(2).softmax(dim=-1)  # (B, K, N)
        # The clusters as a map of K x 1: a norm then averages over (B, K), as over (B, H, W).
        clusters = to_map(assignment @ to_tokens(x), (self.num_classes, 1))  # (B, 4c, K, 1)
        q, k, v = (
            to_tokens(t)[:, None]  # (B, c, ...) -> (B, 1, L, c)
            for t in (self.q(x), self.k(clusters), self.v(clusters))
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]  # (B, N, c)
        return self.cls_seg(self.proj(to_map(y, size))), cluster_logits

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: dict) -> dict:
        """Losses and accuracies, of the prediction and of the clusters."""
        logits, cluster_logits = self.get_logits(inputs)
        losses = self.loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        cluster_logits = resize(
            cluster_logits, label.shape[1:], mode='bilinear', align_corners=self.align_corners
        )
        losses[self.loss_cluster.loss_name] = self.loss_cluster(
            cluster_logits, label, ignore_index=self.ignore_index
        )
        losses['acc_cluster'] = accuracy(cluster_logits, label, ignore_index=self.ignore_index)
        return losses

"""Mask2Former's test path as a traced file can hold it (Cheng et al., CVPR 2022, arXiv:2112.01527).

MMDetection's head keeps the sizes of its maps in tensors and asks these for numbers, which a trace
cannot follow for a size that is free. Here the same layers run in the same order, with sizes that
are numbers of the trace.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor

from ..backbones.layers import to_tokens

Size = tuple[int, int]  # height, width


def classify_pixels(head: Mask2FormerHead, maps: Sequence[Tensor], size: Size) -> Tensor:
    """What MMSegmentation's head predicts: for each class, how much the masks of it say of a pixel.

    Args:
        head: In eval mode.
        maps: Of the backbone, from fine to coarse, each (B, C_i, H_i, W_i).
        size: Of the image.

    Returns:
        (B, num_classes, *size).
    """
    mask_features, memories = decode_pixels(head.pixel_decoder, maps)
    memories = memories[: head.num_transformer_feat_level]
    keys = [
        to_tokens(project(memory)) + level
        for project, memory, level in zip(
            head.decoder_input_projs, memories, head.level_embed.weight
        )
    ]
    positions = [encode_positions(head.decoder_positional_encoding, memory) for memory in memories]
    batch = maps[0].shape[0]
    queries = head.query_feat.weight.expand(batch, -1, -1)
    query_positions = head.query_embed.weight.expand(batch, -1, -1)
    for i, layer in enumerate(head.transformer_decoder.layers):
        level = i % len(memories)
        _, _, background = head._forward_head(queries, mask_features, memories[level].shape[2:])
        queries = layer(
            query=queries,
            key=keys[level],
            value=keys[level],
            query_pos=query_positions,
            key_pos=positions[level],
            # A mask that is background alone hides nothing.
            cross_attn_mask=background & ~background.all(dim=-1, keepdim=True),
        )
    scores, masks, _ = head._forward_head(queries, mask_features, mask_features.shape[2:])
    masks = F.interpolate(masks, size, mode='bilinear', align_corners=False).sigmoid()
    return torch.einsum('bqc,bqhw->bchw', scores.softmax(dim=-1)[..., :-1], masks)


def decode_pixels(
    decoder: MSDeformAttnPixelDecoder, maps: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Maps of the backbone -> what masks are read from, and the maps that queries look at.

    The coarser ones, in this order, attend to each other; the finer ones are added to them.
    """
    coarse = [convolve(x) for convolve, x in zip(decoder.input_convs, reversed(maps))]
    sizes = [(x.shape[2], x.shape[3]) for x in coarse]
    positions = [
        encode_positions(decoder.postional_encoding, x) + level
        for x, level in zip(coarse, decoder.level_encoding.weight)
    ]
    points = torch.cat([make_points(size, coarse[0]) for size in sizes])
    tokens, position = torch.cat([to_tokens(x) for x in coarse], 1), torch.cat(positions, 1)
    for layer in decoder.encoder.layers:
        tokens = layer.norms[0](attend(layer.self_attn, tokens, position, points, sizes))
        tokens = layer.norms[1](layer.ffn(tokens))

    split = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=2)
    decoded = [x.unflatten(2, size) for x, size in zip(split, sizes)]
    finer = list(zip(maps, decoder.lateral_convs, decoder.output_convs))
    for x, lateral, convolve in reversed(finer):
        x = lateral(x)
        above = F.interpolate(decoded[-1], x.shape[2:], mode='bilinear', align_corners=False)
        decoded.append(convolve(x + above))
    return decoder.mask_feature(decoded[-1]), decoded[: decoder.num_outs]


def encode_positions(encoding: torch.nn.Module, x: Tensor) -> Tensor:
    """The sine encoding of a map's positions as tokens, (B, H W, C)."""
    return to_tokens(encoding(None, x))


def make_points(size: Size, like: Tensor) -> Tensor:
    """Centres of a map's positions, (H W, 2) as x, y in 0 to 1."""
    centres = [(torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in size]
    y, x = torch.meshgrid(*centres, indexing='ij')
    return torch.stack((x, y), -1).flatten(0, 1)


def attend(
    attention: MultiScaleDeformableAttention,
    tokens: Tensor,
    position: Tensor,
    points: Tensor,
    sizes: Sequence[Size],
) -> Tensor:
    """Deformable attention of several maps to themselves (Zhu et al., ICLR 2021, eq. 3).

    Args:
        attention: The layer.
        tokens: Of all maps, (B, N, C), N = sum of H W.
        position: Their encodings, (B, N, C).
        points: Where each of them looks before it moves, (N, 2).
        sizes: Of the maps.

    Returns:
        (B, N, C), with the tokens added.
    """
    heads, num_points = attention.num_heads, attention.num_points
    query = tokens + position
    offsets = attention.sampling_offsets(query).unflatten(2, (heads, len(sizes), num_points, 2))
    weights = attention.attention_weights(query).unflatten(2, (heads, -1)).softmax(dim=-1)
    values = attention.value_proj(tokens).unflatten(2, (heads, -1))
    levels = []
    for level, (height, width) in enumerate(sizes):
        x = points[:, 0, None, None] + offsets[:, :, :, level, :, 0] / width  # (B, N, heads, p)
        y = points[:, 1, None, None] + offsets[:, :, :, level, :, 1] / height
        levels.append(torch.stack((x, y), -1))
    read = multi_scale_deformable_attn_pytorch(
        values, sizes, torch.stack(levels, 3), weights.unflatten(3, (len(sizes), num_points))
    )
    return tokens + attention.output_proj(read)

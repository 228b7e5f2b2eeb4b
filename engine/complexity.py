"""Parameters and multiply-accumulates of a model, without weights, data or time.

The model is built and run on the ``meta`` device, where tensors have shapes but no numbers, under
PyTorch's own counter: convolutions, linear layers and every matrix product, fused attention too.
Mask2Former asks its tensors for numbers, so it runs on the CPU, with attention taken apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# A two-stage detector's heads see as many regions as mmdet's tools/analysis_tools/get_flops.py has.
NUM_PROPOSALS = 1000
NUM_MASKS = 100


class Complexity(NamedTuple):
    """What a model costs on one image."""

    params: int
    macs: int
    shape: tuple[int, int]  # height, width


def build(cfg: Config, device: str = 'meta') -> nn.Module:
    """The model of a config without pretrained weights, on ``meta`` without any."""
    model_cfg = ConfigDict(cfg.model.to_dict())
    model_cfg.pop('pretrained', None)
    model_cfg.backbone.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(model_cfg).eval()


def measure(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Count a config's model on one image of ``shape`` (height, width)."""
    device = 'cpu' if is_mask2former(cfg.model.get('decode_head') or {}) else 'meta'
    model = build(cfg, device)
    image = torch.empty(1, 3, *shape, device=device)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run(model, image)
    params = sum(p.numel() for p in model.parameters())
    return Complexity(params, counter.get_total_flops() // 2, shape)


def is_mask2former(head: dict) -> bool:
    return 'Mask2Former' in head.get('type', '')


def run(model: nn.Module, image: Tensor) -> None:
    """Everything that a model computes for an image, but what depends on the numbers in it."""
    features = model.extract_feat(image)
    if hasattr(model, 'head'):  # mmpretrain
        model.head(features)
    elif hasattr(model, 'decode_head'):  # mmseg
        if hasattr(model.decode_head, 'transformer_decoder'):  # Mask2Former wants an image's size
            model.decode_head(features, [SegDataSample(metainfo=dict(img_shape=image.shape[2:]))])
        else:
            model.decode_head(features)
    elif hasattr(model, 'roi_head'):  # mmdet, two stages
        model.rpn_head(features)
        run_on_regions(model.roi_head)
    else:  # mmdet, one stage
        model.bbox_head(features)


def run_on_regions(roi_head: nn.Module) -> None:
    """The heads of a two-stage detector on empty regions, each stage of a cascade on all."""
    for kind, number in (('bbox', NUM_PROPOSALS), ('mask', NUM_MASKS)):
        heads = getattr(roi_head, f'{kind}_head', None)
        extractors = getattr(roi_head, f'{kind}_roi_extractor', None)
        if heads is None:
            continue
        if not isinstance(heads, nn.ModuleList):
            heads, extractors = [heads], [extractors]
        for head, extractor in zip(heads, extractors):
            size = extractor.roi_layers[0].output_size
            head(torch.empty(number, extractor.out_channels, *size, device='meta'))

"""Parameters, multiply-accumulates and activations of a model, without weights, data or time.

The model is built and run on the ``meta`` device, where tensors have shapes but no numbers, under
PyTorch's own counter: convolutions, linear layers and every matrix product, fused attention too.
Mask2Former asks its tensors for numbers, so it runs on the CPU, with attention taken apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from .inference import build_model

# A two-stage detector's heads see as many regions as mmdet's tools/analysis_tools/get_flops.py has.
NUM_PROPOSALS = 1000
NUM_MASKS = 100


class Count(NamedTuple):
    """Of a module: parameters, multiply-accumulates."""

    params: int
    macs: int


class Complexity(NamedTuple):
    """What a model costs on one image of a size.

    ``activations``: numbers that convolutions, linear layers and matrix products put out.
    ``modules``: every module that holds parameters or computes, by its name, in order.
    ``original``: the same as the authors count it, see :func:`count_as_published`.
    """

    params: int
    macs: int
    activations: int
    shape: tuple[int, int]  # height, width
    modules: dict[str, Count]
    original: dict[str, float]

    @property
    def parts(self) -> dict[str, Count]:
        """Backbone, neck and heads."""
        return {name: count for name, count in self.modules.items() if '.' not in name}


class ActivationCounter(TorchDispatchMode):
    """Counts the numbers that the operators known to PyTorch's counter put out."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += (out[0] if isinstance(out, tuple) else out).numel()
        return out


class _Run(nn.Module):
    """Gives the counter one root, so that modules have the names they have in the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> None:
        run(self.model, image)


def measure(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Count a config's model on one image of ``shape`` (height, width)."""
    device = 'cpu' if is_mask2former(cfg.model.get('decode_head') or {}) else 'meta'
    with torch.device(device):
        model = build_model(cfg, device)
    channels = cfg.model.backbone.get('in_channels', 3)
    image = torch.empty(1, channels, *shape, device=device)
    flops, activations, extra = FlopCounterMode(display=False), ActivationCounter(), ExtraCounter()
    extra.watch(model)
    with flops, activations, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        _Run(model)(image)
    counted = {
        name.removeprefix('_Run.model').removeprefix('.'): sum(ops.values()) // 2
        for name, ops in flops.get_flop_counts().items()
        if name.startswith('_Run.model')
    }
    modules = {}
    for name, module in model.named_modules():
        params = sum(p.numel() for p in module.parameters())
        if name and (params or name in counted):
            modules[name] = Count(params, count_below(name, module, counted))
    macs = flops.get_total_flops() // 2
    params = sum(p.numel() for p in model.parameters())
    original = count_as_published(model, macs, extra)
    return Complexity(params, macs, activations.total, shape, modules, original)


def count_below(name: str, module: nn.Module, counted: dict[str, int]) -> int:
    """MACs of a module; one that is not called itself has those of its children."""
    if name in counted:
        return counted[name]
    children = module.named_children()
    return sum(count_below(f'{name}.{child}', inner, counted) for child, inner in children)


class ExtraCounter:
    """What published counts add: norms, and transposed convolutions at their output's size."""

    def __init__(self) -> None:
        self.layer_norm = self.batch_norm = self.transposed = 0

    def watch(self, model: nn.Module) -> None:
        """Count what the model's modules put out from now on."""
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_hook(self._count_layer_norm)
            elif isinstance(module, _BatchNorm):
                module.register_forward_hook(self._count_batch_norm)
            elif isinstance(module, nn.ConvTranspose2d):
                module.register_forward_hook(self._count_transposed)

    def _count_layer_norm(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        self.layer_norm += out.numel()

    def _count_batch_norm(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        self.batch_norm += out.numel()

    def _count_transposed(self, module: nn.ConvTranspose2d, args: tuple, out: Tensor) -> None:
        macs_at_input = args[0].numel() * module.weight[0].numel()
        macs_at_output = macs_at_input * out.shape[2:].numel() // args[0].shape[2:].numel()
        self.transposed += macs_at_output - macs_at_input


def count_as_published(model: nn.Module, macs: int, extra: ExtraCounter) -> dict[str, float]:
    """Parameters in millions and FLOPs in billions by the convention of the backbone's authors.

    PaCa-ViT: transposed convolutions at the size of their output. GroupMixFormer: 5 per element of
    a LayerNorm and 2 of a batch norm on top. FCViT: parameters in units of 2^20. MSF: parameters
    without vectors.
    """
    params = list(model.parameters())
    total = sum(p.numel() for p in params)
    family = type(model.backbone).__name__
    if family == 'PaCaViT':
        macs += extra.transposed
    elif family == 'GroupMixFormer':
        macs += 5 * extra.layer_norm + 2 * extra.batch_norm
    elif family == 'MSFViT':
        total = sum(p.numel() for p in params if p.dim() >= 2)
    return dict(params=total / (2**20 if family == 'FCViT' else 1e6), flops=macs / 1e9)


def is_mask2former(head: dict) -> bool:
    return 'Mask2Former' in head.get('type', '')


def run(model: nn.Module, image: Tensor) -> None:
    """Everything that a model computes for an image, but what depends on the numbers in it."""
    features = model.backbone(image)
    if getattr(model, 'neck', None) is not None:
        features = model.neck(features)
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
            regions = torch.empty(number, extractor.out_channels, *size)
            head(regions.to(next(head.parameters()).device))

"""A loaded model made quick for inference, and shown to be the same function.

    model = load_model(cfg, checkpoint)
    model = optimize(model).model          # or: precision='bf16', execution='compiled'
    sample = predict(model, load_image(pipeline, 'photo.jpg'))

Batch norms go into the convolutions before them, parts that timm has another form of for inference
take it, and weights lie in channels_last. On demand, layers run in half the bits, or the backbone
is compiled, once for all sizes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from .benchmark import DTYPES

# What a map of backbone or neck may differ by, of its largest value.
TOLERANCES = {'fp32': 1e-5, 'bf16': 0.1, 'fp16': 0.02}
CHECKED = ((128, 160), (97, 135))  # height and width of the images that they are made of


class Optimized(NamedTuple):
    """What :func:`optimize` makes.

    Args:
        model: The quick one, in eval mode and without gradients.
        folded: Batch norms that are gone.
        error: The largest difference of a map of backbone or neck, by its largest value.
    """

    model: nn.Module
    folded: int
    error: float


@torch.no_grad()
def optimize(
    model: nn.Module, precision: str = 'fp32', execution: str = 'eager', in_channels: int = 3
) -> Optimized:
    """A quick copy of a model, which cannot be trained.

    Args:
        model: A classifier, detector or segmentor, as ``load_model`` gives it.
        precision: 'fp32', 'bf16' or 'fp16', of products and convolutions, as in autocast.
        execution: 'eager', or 'compiled': the backbone by torch.compile, when it first runs.
        in_channels: Of the image.

    Raises:
        UserError: When the copy's backbone or neck does not give the same maps.
    """
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randn(1, in_channels, *size, generator=generator).to(next(model.parameters()))
        for size in CHECKED
    ]
    quick = copy.deepcopy(model).eval().requires_grad_(False)
    reparameterize_model(quick.backbone, inplace=True)
    folded = fold_batch_norms(quick)
    quick.to(memory_format=torch.channels_last)
    if precision != 'fp32':
        _use_half(quick, DTYPES[precision])
    error = max(
        float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))
        for image in images
        for a, b in zip(_find_maps(model, image, 'fp32'), _find_maps(quick, image, precision))
    )
    if not error <= TOLERANCES[precision]:
        raise UserError(f'optimized in {precision}, the maps differ by {error:.1e} of their values')
    if execution == 'compiled':
        quick.backbone.compile(dynamic=True)
    if precision != 'fp32':
        quick.test_step = _InHalf(quick, precision)
    return Optimized(quick, folded, error)


def fold_batch_norms(model: nn.Module) -> int:
    """Batch norms in eval mode into the convolutions before them, where these certainly are.

    That is in sequences, also nested ones, and in the toolboxes' ``ConvModule``.

    Returns:
        How many.
    """
    pairs, inner = [], set()
    for module in model.modules():
        if isinstance(module, ConvModule):
            if module.with_norm and module.order[:2] == ('conv', 'norm'):
                pairs.append(((module, 'conv'), (module, module.norm_name)))
        elif type(module) is nn.Sequential and module not in inner:
            inner.update(part for part in module.modules() if type(part) is nn.Sequential)
            steps = list(_list_steps(module))
            pairs += zip(steps, steps[1:])
    uses = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    folded = 0
    for (owner, name), (norm_owner, norm_name) in pairs:
        conv, norm = getattr(owner, name), getattr(norm_owner, norm_name)
        if uses[conv] == uses[norm] == 1 and _is_foldable(conv, norm):
            setattr(owner, name, fuse_conv_bn_eval(conv, norm))
            setattr(norm_owner, norm_name, nn.Identity())
            folded += 1
    return folded


def _list_steps(sequence: nn.Sequential) -> Iterator[tuple[nn.Module, str]]:
    """The layers of nested sequences in turn, each as its owner and the name there."""
    for name, step in sequence.named_children():
        if type(step) is nn.Sequential:
            yield from _list_steps(step)
        else:
            yield sequence, name


def _is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether a convolution's channels are scaled and shifted by what no image changes."""
    return (
        type(conv) is nn.Conv2d
        and isinstance(norm, _BatchNorm)
        and norm.running_mean is not None
        and not any((conv._forward_hooks, norm._forward_hooks, norm._forward_pre_hooks))
    )


def _use_half(model: nn.Module, dtype: torch.dtype) -> None:
    """The weights that autocast would cast at each pass."""
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(dtype)


class _InHalf:
    """``model.test_step`` in autocast."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        self.step = model.test_step
        self.device = next(model.parameters()).device.type
        self.dtype = DTYPES[precision]

    def __call__(self, batch: dict) -> list:
        with torch.autocast(self.device, self.dtype):
            return self.step(batch)


def _find_maps(model: nn.Module, image: Tensor, precision: str) -> list[Tensor]:
    """The backbone's maps, and the neck's if there is one."""
    dtype = DTYPES[precision]
    with torch.autocast(image.device.type, dtype, enabled=dtype is not None):
        maps = model.backbone(image)
        if getattr(model, 'neck', None) is not None:
            maps = (*maps, *model.neck(maps))
    return [feature.float() for feature in maps]

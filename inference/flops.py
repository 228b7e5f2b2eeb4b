"""Parameters, multiply-accumulates and activations of a model, without weights, data or time.

The model is built and run on the ``meta`` device, where tensors have shapes but no numbers, under
PyTorch's own counter: convolutions, linear layers and every matrix product, fused attention too.
Some ask their tensors for numbers, Mask2Former and many of MMPretrain's backbones: those run on the
CPU, with attention taken apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..engine.building import build_model, count_channels
from ..engine.toolboxes import Toolbox, find_toolbox
from ..families import find_family
from ..families.family import Published, Totals, count_plainly


class Count(NamedTuple):
    """Of a module: parameters, multiply-accumulates."""

    params: int
    macs: int


class Complexity(NamedTuple):
    """What a model costs on one image of a size.

    ``activations``: numbers that convolutions, linear layers and matrix products put out.
    ``modules``: every module that holds parameters or computes, by its name, in order.
    ``original``: the same as the authors count it, see :class:`mmdense.families.family.Family`.
    """

    params: int
    macs: int
    activations: int
    shape: tuple[int, int]  # height, width
    modules: dict[str, Count]
    original: Published

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
    """Everything that a model computes for an image, but what depends on the numbers in it.

    It is the root that the counter needs for modules to have the names they have in the model.
    """

    def __init__(self, model: nn.Module, toolbox: Toolbox) -> None:
        super().__init__()
        self.model = model
        self.toolbox = toolbox

    def forward(self, image: Tensor) -> None:
        maps = self.model.backbone(image)
        if getattr(self.model, 'neck', None) is not None:
            maps = self.model.neck(maps)
        self.toolbox.run_heads(self.model, maps, image.shape[2:])


def measure(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Count a config's model on one image of ``shape`` (height, width).

    Raises:
        UserError: When the config is none of a classifier, detector or segmentor, or cannot be
            built.
    """
    try:
        return count(cfg, shape, 'meta')
    except (NotImplementedError, RuntimeError) as error:
        if 'meta' not in str(error):
            raise
    return count(cfg, shape, 'cpu')


def count(cfg: Config, shape: tuple[int, int], device: str) -> Complexity:
    """What :func:`measure` gives, with the model on a device."""
    toolbox = find_toolbox(cfg)
    model = build_model(cfg, device)
    channels = count_channels(cfg)
    image = torch.empty(1, channels, *shape, device=device)
    flops, activations, extra = FlopCounterMode(display=False), ActivationCounter(), ExtraCounter()
    extra.watch(model)
    with flops, activations, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        _Run(model, toolbox)(image)
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
    matrices = sum(p.numel() for p in model.parameters() if p.dim() >= 2)
    totals = Totals(params, matrices, macs, extra.layer_norm, extra.batch_norm, extra.transposed)
    family = find_family(model.backbone)
    original = family.count(totals) if family else count_plainly(totals)
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
        """Count what the model's modules put out from now on.

        A layer that is watched runs as it stands, on a CPU too, so that its products are counted as
        its own (see :mod:`mmdense.backbones.fused`).
        """
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_hook(self._count_layer_norm)
            elif isinstance(module, _BatchNorm):
                module.register_forward_hook(self._count_batch_norm)
            elif isinstance(module, nn.ConvTranspose2d):
                module.register_forward_hook(self._count_transposed)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(lambda *_: None)

    def _count_layer_norm(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        self.layer_norm += out.numel()

    def _count_batch_norm(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        self.batch_norm += out.numel()

    def _count_transposed(self, module: nn.ConvTranspose2d, args: tuple, out: Tensor) -> None:
        macs_at_input = args[0].numel() * module.weight[0].numel()
        macs_at_output = macs_at_input * out.shape[2:].numel() // args[0].shape[2:].numel()
        self.transposed += macs_at_output - macs_at_input

"""A loaded model made quick for inference, and shown to be the same function.

    model = load_model(cfg, checkpoint)
    model = optimize(model).model          # or: precision='bf16', execution='compiled'
    sample = predict(model, load_image(pipeline, 'photo.jpg'))

Batch norms go into the convolutions before them, parts that timm has another form of for inference
take it, and weights lie in channels_last. On demand, backbone and neck run in half the bits, or the
backbone is compiled, once for all sizes.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from mmengine.utils import apply_to
from timm.layers import BatchNormAct2d
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..engine.amp import DTYPES, warn_of_emulation
from ..engine.building import count_channels
from ..engine.toolboxes import check_model_config
from ..errors import UserError, first_line
from ..registry import HOOKS

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

    def describe(self) -> str:
        """The figures in words."""
        return f'{self.folded} batch norms folded, maps within {self.error:.0e} of their values'


@torch.no_grad()
def optimize(
    model: nn.Module, precision: str = 'fp32', execution: str = 'eager', in_channels: int = 3
) -> Optimized:
    """A quick copy of a model, which cannot be trained.

    Args:
        model: A classifier, detector or segmentor, as ``load_model`` gives it, or a backbone.
        precision: 'fp32', 'bf16' or 'fp16', of products and convolutions in backbone and neck, as
            in autocast.
        execution: 'eager', or 'compiled': the backbone by torch.compile, when it first runs.
        in_channels: Of the image.

    Raises:
        UserError: When the copy's backbone or neck does not give the same maps, or takes images of
            one size alone.
    """
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randn(1, in_channels, *size, generator=generator).to(next(model.parameters()))
        for size in CHECKED
    ]
    quick = copy.deepcopy(model).eval().requires_grad_(False)
    reparameterize_model(_get_backbone(quick), inplace=True)
    folded = fold_batch_norms(quick)
    quick.to(memory_format=torch.channels_last)
    if precision != 'fp32':
        warn_of_emulation(images[0].device.type)
        _use_half(quick, DTYPES[precision])
    try:
        expected = [_find_maps(model, image, 'fp32') for image in images]
    except Exception as error:  # of a backbone whose images have one size
        reason = first_line(error)
        raise UserError(f'only what takes images of any size is optimized: {reason}') from error
    errors = [
        (a - b).abs().max() / a.abs().max().clamp(min=1e-12)
        for image, maps in zip(images, expected)
        for a, b in zip(maps, _find_maps(quick, image, precision))
    ]
    error = float(torch.stack(errors).max())  # NaN, if one is
    if not error <= TOLERANCES[precision]:
        raise UserError(f'optimized in {precision}, the maps differ by {error:.1e} of their values')
    if execution == 'compiled':
        _get_backbone(quick).compile(dynamic=True)
    if precision != 'fp32':
        name = 'forward' if quick is _get_backbone(quick) else 'extract_feat'
        setattr(quick, name, _InHalf(quick, name, precision))
    return Optimized(quick, folded, error)


def add_optimize(parser: argparse.ArgumentParser) -> None:
    """The flags of tools that may run a quick copy."""
    parser.add_argument(
        '--optimize',
        action='store_true',
        help='fold batch norms into convolutions, and check that the backbone stays the same',
    )
    parser.add_argument(
        '--precision',
        choices=tuple(DTYPES),
        default='fp32',
        help='with --optimize: of products and convolutions in backbone and neck',
    )
    parser.add_argument(
        '--execution',
        choices=('eager', 'compiled'),
        default='eager',
        help='with --optimize: compile the backbone, once for all sizes',
    )


def check_optimize(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with the parser's error where flags lack the one that they go with."""
    if not args.optimize and (args.precision, args.execution) != ('fp32', 'eager'):
        parser.error('--precision and --execution go with --optimize')


def enable_optimize(cfg: Config, precision: str, execution: str) -> None:
    """Let a test run with a quick copy of the model, before anything else wraps that.

    Args:
        cfg: The config.
        precision: As in :func:`optimize`.
        execution: As there.

    Raises:
        UserError: When the config is of no model with a backbone.
    """
    check_model_config(cfg)
    hook = dict(type='mmdense.OptimizeHook', precision=precision, execution=execution)
    hook['in_channels'] = count_channels(cfg)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


@HOOKS.register_module()
class OptimizeHook(Hook):
    """Tests a quick copy of the model, made when the weights are those that are tested.

    Args:
        options: Of :func:`optimize`.
    """

    priority = 'VERY_LOW'  # after what averages weights

    def __init__(self, **options: object) -> None:
        self.options = options

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the copy in the model's place, below whatever wraps that."""
        self.owner, self.name, self.model = runner, 'model', runner.model
        while isinstance(self.model, BaseTTAModel) or is_model_wrapper(self.model):
            self.owner, self.name, self.model = self.model, 'module', self.model.module
        quick = optimize(self.model, **self.options)
        runner.logger.info(f'optimized: {quick.describe()}')
        setattr(self.owner, self.name, quick.model)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the model back."""
        setattr(self.owner, self.name, self.model)


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
        and not isinstance(norm, BatchNormAct2d)  # timm's, with an activation in it
        and norm.running_mean is not None
        and not any(
            hooks for m in (conv, norm) for hooks in (m._forward_hooks, m._forward_pre_hooks)
        )
    )


def _get_backbone(model: nn.Module) -> nn.Module:
    return getattr(model, 'backbone', model)


def _use_half(model: nn.Module, dtype: torch.dtype) -> None:
    """The weights that autocast would cast at each pass."""
    for part in (_get_backbone(model), getattr(model, 'neck', None) or nn.Identity()):
        for module in part.modules():
            if type(module) in (nn.Conv2d, nn.Linear):
                module.to(dtype)


class _InHalf:
    """A method in autocast that makes maps; heads get float32: boxes need more than eight bits."""

    def __init__(self, model: nn.Module, name: str, precision: str) -> None:
        self.extract = getattr(model, name)
        self.device = next(model.parameters()).device.type
        self.dtype = DTYPES[precision]

    def __call__(self, *args: object, **kwargs: object) -> object:
        with torch.autocast(self.device, self.dtype):
            maps = self.extract(*args, **kwargs)
        return apply_to(maps, torch.is_tensor, Tensor.float)


def _find_maps(model: nn.Module, image: Tensor, precision: str) -> list[Tensor]:
    """The backbone's maps, and the neck's if there is one."""
    dtype = DTYPES[precision]
    with torch.autocast(image.device.type, dtype, enabled=dtype is not None):
        maps = _get_backbone(model)(image)
        if getattr(model, 'neck', None) is not None:
            maps = (*maps, *model.neck(maps))
    return [feature.float() for feature in maps]

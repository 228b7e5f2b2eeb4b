"""Any model of timm as a backbone: maps of strides 4, 8, 16 and 32, by the model's name.

https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from timm.models import group_parameters
from torch import Tensor, nn

from ..errors import UserError, suggest
from ..registry import MODELS
from .base import BATCH_NORM, BaseBackbone

STRIDES = (4, 8, 16, 32)
FACTORS = (4, 2, 1, 0.5, 0.25)  # of the sides of a map, that mmseg's pyramid has parts for
# What timm calls it that an image may have any size: the first that a model takes.
ANY_SIZE = (dict(dynamic_img_size=True), dict(strict_img_size=False), {})


@MODELS.register_module()
class Timm(BaseBackbone):
    """A model that ``timm.create_model`` knows, without its classifier.

    A hierarchical model gives its last map of each of the strides 4, 8, 16 and 32. The maps of a
    plain transformer have one stride: those at the ends of four equal parts of its depth become
    the pyramid of mmseg's ``Feature2Pyramid``. Images are padded with zeros, at the right and
    below, to sides that 32 divides, and maps cut to the sides of the image by their stride.

    Args:
        model_name: timm's, with or without the tag of its weights:
            ``'convnext_tiny.dinov3_lvd1689m'``.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; ``None`` for the model's own.
        out_indices: Which of the four maps are returned, finest first; negative counts from the
            end.
        frozen_stages: 0 freezes the stem, k also the first k stages, of a plain transformer blocks,
            as timm's ``group_matcher`` has them; -1 nothing.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` for a checkpoint that a
            training here wrote, or ``None``.
        pretrained: ``True`` for the weights that timm knows by the name, or a file of them, as timm
            or the model's authors have it. ``init_weights`` loads them, and so does a training.
        norm_cfg: Norms in the pyramid of a plain transformer.
        options: What else the model takes in timm, such as ``patch_size=16``.

    Raises:
        UserError: For a name that timm does not have, a model without these strides, or one that
            takes images of one size alone, unless ``img_size`` is given.
        ValueError: For a map or a stage that the model does not have.
    """

    def __init__(
        self,
        model_name: str,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        *,
        pretrained: bool | str = False,
        norm_cfg: dict = BATCH_NORM,
        **options: object,
    ) -> None:
        options = dict(options, in_chans=in_channels)
        if drop_path_rate is not None:
            options['drop_path_rate'] = drop_path_rate
        model = create(model_name, options)
        infos = list(model.feature_info)
        taps = find_taps(model_name, [info['reduction'] for info in infos])
        if 'img_size' not in options and getattr(model, '_traits', {}).get('fixed_input_size'):
            check_any_size(model_name, options)
        channels = [infos[tap]['num_chs'] for tap in taps]
        super().__init__(channels, STRIDES, out_indices, -1, norm_eval, with_cp, init_cfg)
        for info, tap in zip(self.feature_info, taps):
            info['module'] = f'model.{infos[tap]["module"]}'
        self.model_name, self.options, self.pretrained = model_name, options, pretrained
        used = [taps[i] for i in self.out_indices]
        self.taps = sorted(set(used))
        self.order = [self.taps.index(tap) for tap in used]
        self.model = model
        self.model.prune_intermediate_layers(self.taps, prune_norm=True, prune_head=True)
        self.model.set_grad_checkpointing(with_cp)
        factors = [infos[taps[i]]['reduction'] / STRIDES[i] for i in self.out_indices]
        self.pyramid = build_pyramid(channels[0], factors, norm_cfg)
        self.frozen_stages = frozen_stages
        last = max(self.coarse_groups.values()) if frozen_stages >= 0 else 0
        if not -1 <= frozen_stages <= last:
            raise ValueError(f'frozen_stages={frozen_stages} is not in [-1, {last}]')
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, in_channels, H, W) -> one (B, C, H/stride, W/stride) per out index."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        maps = self.model.forward_intermediates(x, indices=self.taps, intermediates_only=True)
        outs = []
        for i, place, part in zip(self.out_indices, self.order, self.pyramid):
            rows, columns = (-(-side // STRIDES[i]) for side in (height, width))
            outs.append(part(maps[place])[:, :, :rows, :columns])
        return tuple(outs)

    def init_weights(self) -> None:
        """Load timm's weights, if they are wanted, then the file that ``init_cfg`` names, if any.

        Raises:
            UserError: When there are none, they cannot be fetched, or they do not fit.
        """
        if not self.is_init and self.pretrained:
            self.load_from_timm()
        super().init_weights()

    def init_layer(self, module: nn.Module) -> None:
        """Nothing: timm's models are initialized where they are built."""

    def load_from_timm(self) -> None:
        """Take the weights of the whole model in timm, which brings any form of them into its own.

        Raises:
            UserError: When there are none, they cannot be fetched, or they do not fit.
        """
        self.check_sources()
        from_file = isinstance(self.pretrained, str)
        where = f"'{self.pretrained}'" if from_file else f"timm's {self.model_name}"
        source = dict(file=str(Path(self.pretrained).absolute())) if from_file else {}
        if 'num_classes' in self.options:
            source['num_classes'] = self.options['num_classes']
        options = dict(self.options, pretrained=True, pretrained_cfg_overlay=source)
        try:
            whole = create(self.model_name, options).state_dict()
        except (KeyError, OSError, RuntimeError) as error:  # no network, none, another model's
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
            raise UserError(f'no weights of {self.model_name} from {where}: {reason}') from error
        state = {key: whole[key] for key in self.model.state_dict()}
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError(f'the weights of {where} hold NaN or infinite numbers')
        self.model.load_state_dict(state)
        print_log(f'loaded {len(state)} tensors from {where}', 'current')

    def check_sources(self) -> None:
        """Raise :class:`UserError` when ``pretrained`` names a file that is not there."""
        if isinstance(self.pretrained, str) and not Path(self.pretrained).is_file():
            raise UserError(f"backbone: pretrained='{self.pretrained}' is no file")

    def group(self, coarse: bool) -> dict[str, int]:
        """Which of timm's groups each parameter of the model lies in, from the stem, 0, upwards.

        Args:
            coarse: Stages, where the model has any, and not blocks.

        Raises:
            UserError: When the model has no groups.
        """
        if not hasattr(self.model, 'group_matcher'):
            raise UserError(
                f'{self.model_name} has no group_matcher in timm: neither frozen_stages nor '
                'layer-wise learning rates know its stages'
            )
        return group_parameters(self.model, self.model.group_matcher(coarse=coarse), reverse=True)

    @cached_property
    def coarse_groups(self) -> dict[str, int]:
        """By stages."""
        return self.group(coarse=True)

    @cached_property
    def fine_groups(self) -> dict[str, int]:
        """By blocks."""
        return self.group(coarse=False)

    def freeze(self) -> None:
        """Take the frozen parameters, and modules that have no others, out of training."""
        if self.frozen_stages < 0:
            return
        for name, parameter in self.model.named_parameters():
            if self.coarse_groups[name] <= self.frozen_stages:
                parameter.requires_grad_(False)
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Where a parameter lies, for layer-wise learning rates: in timm's groups, by blocks.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What precedes the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            (layer, number of layers): 0 is the stem; the pyramid and all else have the last.

        Raises:
            UserError: When the model has no groups.
        """
        num_layers = max(self.fine_groups.values()) + 2
        own = f'{prefix}model.'
        name = param_name.removeprefix(own) if param_name.startswith(own) else None
        return self.fine_groups.get(name, num_layers - 1), num_layers


def create(model_name: str, options: dict[str, object]) -> nn.Module:
    """timm's model, for images of any size where it can be.

    Raises:
        UserError: For a name or tag that timm does not have.
    """
    is_timms = ':' not in model_name  # and not a model of a hub or a folder
    if is_timms and not timm.is_model(model_name):
        known = timm.list_models()
        raise UserError(f"timm has no model '{model_name}'{suggest(model_name, known)}")
    name, _, tag = model_name.partition('.')
    tags = [known.partition('.')[2] for known in timm.list_pretrained(f'{name}.*')]
    if is_timms and tag and tag not in tags:
        raise UserError(f"timm's {name} has no weights '{tag}', but {', '.join(tags) or 'none'}")
    for any_size in ANY_SIZE:
        try:
            return timm.create_model(model_name, **{**any_size, **options})
        except TypeError as error:
            if not any(f"'{word}'" in str(error) for word in any_size):
                raise
    raise AssertionError('the last of ANY_SIZE asks for nothing')


def check_any_size(model_name: str, options: dict[str, object]) -> None:
    """Raise :class:`UserError` unless a model takes an image that is not of its own size.

    Some that are said not to do; so it is tried, without numbers.
    """
    with torch.device('meta'), torch.no_grad():
        model = create(model_name, options).eval()
        image = torch.empty(1, options['in_chans'], 3 * STRIDES[-1], 5 * STRIDES[-1])
        try:
            model.forward_intermediates(image, intermediates_only=True)
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f'{model_name} takes images of one size alone: take another model, or give the '
                'backbone img_size=(HEIGHT, WIDTH) where all images have that size'
            ) from error


def find_taps(model_name: str, strides: list[int]) -> list[int]:
    """Which of a model's maps, given by their strides, make those of strides 4, 8, 16 and 32.

    Raises:
        UserError: When none do.
    """
    if len(strides) >= len(STRIDES) and len(set(strides)) == 1:
        if not all(strides[0] / stride in FACTORS for stride in STRIDES):
            raise UserError(
                f'{model_name} has maps of stride {strides[0]}, which make no pyramid of strides '
                '4, 8, 16 and 32: give the backbone patch_size=16'
            )
        return [len(strides) * part // len(STRIDES) - 1 for part in range(1, len(STRIDES) + 1)]
    last = {stride: place for place, stride in enumerate(strides)}
    if not last.keys() >= set(STRIDES):
        raise UserError(
            f'{model_name} has maps of strides {", ".join(map(str, last))}, not 4, 8, 16 and 32: '
            'take a model of timm that has them, or a plain transformer of stride 16'
        )
    return [last[stride] for stride in STRIDES]


def build_pyramid(channels: int, factors: list[float], norm_cfg: dict) -> nn.ModuleList:
    """The parts of mmseg's pyramid that change the sides of maps by ``factors``; 1 is none."""
    if set(factors) == {1}:
        return nn.ModuleList(nn.Identity() for _ in factors)
    pyramid = dict(type='mmseg.Feature2Pyramid', embed_dim=channels, rescales=factors)
    return nn.ModuleList(MODELS.build(dict(pyramid, norm_cfg=norm_cfg)).children())

"""The same backbones behind ``timm.create_model``: ``paca_small``, ``fcvit_b12``, ...

``import mmdense`` registers the names. A model is the one of its ``configs/*/*_in1k.py``: the
classifier has the names of mmpretrain's, so a checkpoint fits both.

    timm.create_model('paca_small', pretrained=True)
    timm.create_model('paca_small', features_only=True, out_indices=(1, 2, 3))
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import accumulate

import torch
from mmengine.registry import MODELS
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import (
    adapt_input_conv,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from timm.models._features import FeatureInfo, feature_take_indices
from torch import Tensor, nn

from .backbones.layers import to_tokens
from .errors import UserError
from .families import FAMILIES
from .families.family import Family, Variant
from .serialization.checkpoint import get_state_dict, load_file
from .serialization.conversion import load_variant
from .serialization.loading import check_numbers, select_pretrained
from .serialization.published import SCHEME

# Where timm finds weights that are no file of this machine, or a state dict.
OTHER_SOURCES = ('state_dict', 'url', 'hf_hub_id')
VARIANTS: dict[str, tuple[Family, Variant]] = {
    name: (family, variant) for family in FAMILIES for name, variant in family.variants.items()
}

default_cfgs = generate_default_cfgs(
    {
        name: dict(
            num_classes=1000,
            input_size=(3, 224, 224),
            pool_size=family.pool_size,
            crop_pct=variant.crop_pct,
            interpolation='bicubic',
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            classifier='head.fc',
            first_conv=(f'backbone.{family.first_conv}',) if family.first_conv else (),
        )
        for name, (family, variant) in VARIANTS.items()
    }
)


def get_backbone(name: str, in_chans: int, drop_path_rate: float | None, options: dict) -> dict:
    """The config of a variant's backbone, with timm's names for what the user changes."""
    family, variant = VARIANTS[name]
    backbone = load_variant(family, variant.config).model.backbone.to_dict()
    backbone.update(options, in_channels=in_chans)
    if drop_path_rate is not None:
        backbone['drop_path_rate'] = drop_path_rate
    return backbone


class TimmClassifier(nn.Module):
    """A backbone and timm's classifier head.

    Args:
        config: A key of ``VARIANTS`` (timm's own argument is called variant).
        num_classes: Classes; 0 for none.
        in_chans: Channels of the image.
        global_pool: 'avg', or any of timm's poolings.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth; by default the recipe's.
        options: Of the backbone.
    """

    def __init__(
        self,
        config: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.is_pooled = VARIANTS[config][0].pool_size == (1, 1)  # before the norm, as in MSF
        self.backbone = MODELS.build(get_backbone(config, in_chans, drop_path_rate, options))
        self.backbone.init_weights()
        self.feature_info = [
            dict(info, module=f'backbone.{info["module"]}') for info in self.backbone.feature_info
        ]
        self.num_features = self.head_hidden_size = self.feature_info[-1]['num_chs']
        self.head = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate
        )

    def finish(self, i: int, feature: Tensor) -> Tensor:
        """Map i as the head takes it, normalized; where that follows the pooling, (B, D, 1, 1)."""
        x = self.backbone.finish(i, feature)
        return x if x.dim() == 4 else x[:, :, None, None]

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) -> the last map, normalized."""
        (last,) = self.backbone.out_indices
        return self.finish(last, self.backbone.forward_maps(x, [last])[last])

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of several stages (of MSF, layers), finest first.

        Args:
            x: Image (B, C, H, W).
            indices: Which of ``feature_info``; a number for so many of the last, ``None`` for all.
            norm: Apply the norm of the last map to it, if it has one; MSF's is of what is pooled.
            stop_early: Compute nothing behind the last map that is wanted.
            output_fmt: 'NCHW' for maps (B, D, h, w), 'NLC' for tokens (B, h*w, D).
            intermediates_only: Leave out what ``forward_features`` returns.

        Returns:
            The maps, or the features and the maps.

        Raises:
            ValueError: For another format.
        """
        if output_fmt not in ('NCHW', 'NLC'):
            raise ValueError(f"output_fmt '{output_fmt}' is neither NCHW nor NLC")
        (end,) = self.backbone.out_indices
        taken, last = feature_take_indices(len(self.feature_info), indices)
        is_whole = not stop_early or last == end
        if not is_whole:
            end = last
        maps = self.backbone.forward_maps(x, {end, *taken})
        outs = [maps[i] for i in sorted(set(taken))]
        features = self.finish(end, maps[end]) if is_whole else maps[end]
        if norm and is_whole and last == end and not self.is_pooled:
            outs[-1] = features
        if output_fmt == 'NLC':
            outs = [to_tokens(out) for out in outs]
        return outs if intermediates_only else (features, outs)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what ``forward_intermediates`` does not need for some maps.

        Args:
            indices: As there.
            prune_norm: Drop the norm of the last map, too.
            prune_head: Drop the classifier, too; without the last stages it goes anyway.

        Returns:
            The maps' places in ``feature_info``.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        is_cut = last < len(self.feature_info) - 1
        is_of_head = prune_head and self.is_pooled
        self.backbone.truncate(last, keep_norms=not prune_norm and not is_of_head)
        if is_cut:
            self.num_features = self.head.in_features = self.feature_info[last]['num_chs']
        if prune_head or is_cut:
            self.reset_classifier(0, '')
        return taken

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (B, num_classes), or what the classifier sees."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or the identity where there are no classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one; 0 classes for none."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.head.to(next(self.backbone.parameters()))
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass to save memory."""
        self.backbone.with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """None: the recipes spare vectors alone, which timm leaves out by itself."""
        return set()

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """What says which group a parameter lies in, for layer-wise learning rates and freezing.

        Args:
            coarse: The stages (of MSF, layers), and not the blocks; 0 makes the tokens.
        """
        depths = list(accumulate(self.backbone.count_blocks()))

        def find(name: str) -> int:
            layer, _ = self.backbone.get_layer_depth(name, 'backbone.')
            return bisect_left([0, *depths], layer) if coarse else layer

        return find


class TimmFeatures(nn.Module):
    """A backbone whose ``forward`` returns a list of maps, with timm's ``feature_info``."""

    def __init__(
        self,
        variant: str,
        out_indices: Sequence[int] | None = None,
        in_chans: int = 3,
        drop_path_rate: float | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        backbone = get_backbone(variant, in_chans, drop_path_rate, options)
        backbone.update(VARIANTS[variant][0].dense)
        if out_indices is not None:
            backbone['out_indices'] = out_indices
        self.backbone = MODELS.build(backbone)
        self.backbone.init_weights()
        self.in_chans = in_chans
        self.feature_info = FeatureInfo(self.backbone.feature_info, self.backbone.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) -> one map per out index."""
        return list(self.backbone(x))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass to save memory."""
        self.backbone.with_cp = enable


def create(
    name: str,
    pretrained: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **kwargs: object,
) -> nn.Module:
    """What timm calls for a registered name.

    Raises:
        UserError: For ``pretrained=True`` when the authors' file cannot be had, or does not fit.
    """
    with nullcontext() if device is None else torch.device(device):
        model = build(name, pretrained, **kwargs)
    return model.to(dtype=dtype)


def build(
    name: str,
    pretrained: bool,
    features_only: bool = False,
    pretrained_cfg: dict | None = None,
    pretrained_cfg_overlay: dict | None = None,
    **kwargs: object,
) -> TimmClassifier | TimmFeatures:
    """The model of a registered name, with its weights if they are wanted."""
    source = {**(pretrained_cfg or {}), **(pretrained_cfg_overlay or {})}
    file = source.get('file') or f'{SCHEME}{VARIANTS[name][1].config}'
    is_timms = not source.get('file') and any(source.get(key) for key in OTHER_SOURCES)
    if features_only:
        for unused in ('num_classes', 'global_pool', 'drop_rate', 'cache_dir', 'feature_cls'):
            kwargs.pop(unused, None)
        model = TimmFeatures(name, **kwargs)
        model.pretrained_cfg = model.default_cfg = default_cfgs[name].default.to_dict()
    else:
        model = build_model_with_cfg(
            TimmClassifier,
            name,
            pretrained and is_timms,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            config=name,
            **kwargs,
        )
    if pretrained and not (is_timms and not features_only):
        load_weights(model, name, file)
    return model


def load_weights(model: TimmClassifier | TimmFeatures, name: str, file: str) -> None:
    """Load a classifier's checkpoint: all of the backbone, and the classifier if it has as many
    classes. For images of other channels the first convolution is fitted as timm does it.

    Raises:
        UserError: When the file does not hold this model.
    """
    state = get_state_dict(load_file(file))
    check_numbers(state, file)
    first = f'backbone.{VARIANTS[name][0].first_conv}.weight'
    if first in state:
        channels = model.get_parameter(first).shape[1]
        state[first] = adapt_input_conv(channels, state[first])
    found = select_pretrained(model.backbone, state, file, 'backbone.')
    missing = model.backbone.load_state_dict(found, strict=False).missing_keys
    norms = model.backbone.may_be_absent
    absent = [key for key in missing if not (norms and re.search(norms, key))]
    if absent:  # timm's variants have a fixed number of clusters
        raise UserError(f"'{file}' is of another variant than {name}: {absent[0]} does not fit")
    head = model.head.state_dict() if isinstance(model, TimmClassifier) else {}
    given = {key: state[f'head.{key}'] for key in head if f'head.{key}' in state}
    if given.keys() != head.keys():
        raise UserError(f"'{file}' holds no classifier")
    if head and all(given[key].shape == value.shape for key, value in head.items()):
        model.head.load_state_dict(given)


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: object) -> nn.Module:
        return create(name, pretrained, **kwargs)

    entry.__name__, entry.__module__ = name, __name__
    return entry


for _name in VARIANTS:
    register_model(_entry_point(_name))

"""Layer-wise learning rates for any classifier, detector or segmentor with a backbone of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from ..errors import UserError
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """Each layer of the backbone learns ``layer_decay_rate`` times as fast as the one above it.

    mmpretrain's constructor, which asks the whole model for the depth of a parameter; detectors and
    segmentors have no answer, their backbone has. ``paramwise_cfg`` is that constructor's:
    ``layer_decay_rate``, ``norm_decay_mult``, ``bias_decay_mult``, ``custom_keys``, whose
    ``lr_mult`` counts here too.

    Raises:
        UserError: When the backbone does not say how deep a parameter lies.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable | None = None,
        **kwargs: object,
    ) -> None:
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise UserError(
                    f'layer-wise decay needs a backbone with get_layer_depth; '
                    f'{type(backbone).__name__} has none'
                )
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth=get_layer_depth)
        if prefix == '':
            for group in params:
                group['lr'] *= group.pop('lr_mult', 1.0)

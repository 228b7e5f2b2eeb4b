"""What the backbones share: two views of one buffer, and the plumbing of a backbone.

Axis legend: B batch, N = H*W tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..engine.checkpoint import load_pretrained


def to_tokens(feature_map: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C); a view when the map is channels_last."""
    return feature_map.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), a channels_last view of the same memory."""
    return tokens.transpose(1, 2).unflatten(2, size)


class BaseBackbone(BaseModule):
    """Arguments and duties that every backbone here has; a subclass builds the layers.

    A subclass names its variants in ``arch_zoo`` and implements ``forward``, ``init_layer``,
    ``get_layer_depth`` and ``frozen_modules``.

    Args:
        num_stages: How many maps the model can return.
        out_indices: Stages whose maps are returned, in this order; negative counts from the end.
        frozen_stages: 0 freezes the stem, k the stem and the first k stages: no gradient, and eval
            mode even in training; -1 freezes nothing.
        norm_eval: Keep batch norms in eval mode while training.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` loads strictly, see
            :func:`mmdense.engine.checkpoint.load_pretrained`; ``None`` initializes from scratch.
    """

    arch_zoo: dict[str, dict] = {}
    # Tensors that keep their fresh values when a pretrained file has them in another shape.
    may_change_shape: str | None = None

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(init_cfg)
        if not all(-num_stages <= i < num_stages for i in out_indices):
            raise ValueError(
                f'out_indices={tuple(out_indices)}: this backbone has {num_stages} stages, '
                f'so each index lies in [{-num_stages}, {num_stages - 1}]'
            )
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(f'frozen_stages={frozen_stages} is not in [-1, {num_stages}]')
        self.out_indices = tuple(i % num_stages for i in out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    @classmethod
    def get_arch(cls, arch: str | dict) -> dict:
        """The settings of a variant: a copy of the zoo's row, or of the dict given."""
        if isinstance(arch, dict):
            needed = set(next(iter(cls.arch_zoo.values())))
            if not needed <= set(arch):
                raise ValueError(
                    f'{cls.__name__} arch lacks {sorted(needed - set(arch))}; got {sorted(arch)}'
                )
            return dict(arch)
        if arch not in cls.arch_zoo:
            raise ValueError(
                f"unknown {cls.__name__} arch '{arch}'; known are {', '.join(cls.arch_zoo)}"
            )
        return dict(cls.arch_zoo[arch])

    def init_weights(self) -> None:
        """Load the pretrained file that ``init_cfg`` names, or initialize every layer."""
        if self.init_cfg and self.pretrained is None:
            super().init_weights()  # mmengine's initializers: Kaiming, TruncNormal, lists of them
        elif self.pretrained is not None:
            load_pretrained(self, **self.pretrained)
        else:
            self.apply(self.init_layer)
        self.is_init = True

    @property
    def pretrained(self) -> dict | None:
        """What :func:`load_pretrained` needs beside the module; None without a pretrained file."""
        if not isinstance(self.init_cfg, dict) or self.init_cfg.get('type') != 'Pretrained':
            return None
        return dict(
            checkpoint=self.init_cfg['checkpoint'],
            prefix=self.init_cfg.get('prefix'),
            may_change_shape=self.may_change_shape,
        )

    def init_layer(self, module: nn.Module) -> None:
        """Set the initial weights of one layer; called for every submodule."""
        raise NotImplementedError

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` covers."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Take the frozen modules out of training."""
        for module in self.frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> BaseBackbone:
        """Set the mode, then put frozen parts and, with ``norm_eval``, batch norms back to eval."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

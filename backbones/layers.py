"""What the backbones share: two views of one buffer, and the plumbing of a backbone.

Axis legend: B batch, N = H*W tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..engine.checkpoint import load_pretrained

BATCH_NORM = dict(type='BN')  # a default; the builders copy what they are given

# Both views go through (B, H, W, C), whose strides are regular for a batch of one too. The shorter
# ways, e.g. flatten(2).transpose(1, 2), give that batch dimension a stride of C, there or in the
# gradient; convolutions then lose channels_last, and batch norm's CPU backward returns wrong
# numbers (seen in PyTorch 2.14: its input contiguous, the gradient channels_last in that way).


def to_tokens(feature_map: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C); a view when the map is channels_last."""
    return feature_map.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), a channels_last view of the same memory."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def check_per_stage(name: str, lists: dict[str, Sequence]) -> None:
    """Raise ``ValueError`` unless all lists, which have one value per stage, are equally long."""
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f'{name} needs one value per stage in each list; got {lengths}')


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth per stage and block: 0 in the first block, ``rate`` in the last."""
    last = max(sum(depths) - 1, 1)
    rates = iter([rate * i / last for i in range(sum(depths))])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def run_block(block: nn.Module, with_cp: bool, *args: object) -> object:
    """Call a block; with ``with_cp`` its activations are recomputed in the backward pass."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)


class BaseBackbone(BaseModule):
    """Arguments and duties that every backbone here has; a subclass builds the layers.

    A subclass names its variants in ``arch_zoo``, builds ``stages``, each with a ``downsample`` and
    ``blocks``, optionally a ``stem`` before them, and implements ``forward``.

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
    # A pretrained file may hold these in another shape: they then keep their fresh values.
    may_change_shape: str | None = None
    # Norms that only some uses of a model have (classification, dense): a pretrained file may lack
    # them, or hold them beside what this use needs.
    may_be_absent: str | None = None

    def __init__(
        self,
        num_stages: int,
        out_indices: int | Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(init_cfg)
        out_indices = (out_indices,) if isinstance(out_indices, int) else out_indices
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
            rows = [set(row) for row in cls.arch_zoo.values()]
            missing, unknown = set.intersection(*rows) - set(arch), set(arch) - set.union(*rows)
            if missing or unknown:
                problems = [f'lacks {sorted(missing)}'] if missing else []
                problems += [f'has unknown {sorted(unknown)}'] if unknown else []
                raise ValueError(f'{cls.__name__} arch {" and ".join(problems)}')
            return dict(arch)
        if arch not in cls.arch_zoo:
            raise ValueError(
                f"unknown {cls.__name__} arch '{arch}'; known are {', '.join(cls.arch_zoo)}"
            )
        return dict(cls.arch_zoo[arch])

    def init_weights(self) -> None:
        """Initialize every layer, then load the pretrained file that ``init_cfg`` names, if any.

        Other initializers of mmengine (``TruncNormal``, ...) in ``init_cfg`` replace ours.
        """
        if self.is_init:
            return
        entries = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        others = [entry for entry in entries if entry.get('type') not in (None, 'Pretrained')]
        if others:
            initialize(self, others)
        else:
            self.apply(self.init_layer)
        if self.pretrained is not None:
            load_pretrained(self, **self.pretrained)
        self.is_init = True

    @property
    def pretrained(self) -> dict | None:
        """What :func:`load_pretrained` needs beside the module; None without a pretrained file."""
        entries = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        for entry in entries:
            if entry.get('type') == 'Pretrained':
                return dict(
                    checkpoint=entry['checkpoint'],
                    prefix=entry.get('prefix'),
                    may_change_shape=self.may_change_shape,
                    may_be_absent=self.may_be_absent,
                )
        return None

    def init_layer(self, module: nn.Module) -> None:
        """Set one layer's weights: truncated normal (linear), fan-out normal (2-D convolution)."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        else:
            return
        if module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def first_layers(self) -> nn.Module:
        """What turns the image into tokens: the stem, or the first stage's downsampling."""
        return self.stem if hasattr(self, 'stem') else self.stages[0].downsample

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` covers."""
        if self.frozen_stages < 0:
            return []
        return [self.first_layers, *self.stages[: self.frozen_stages]]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Where a parameter lies, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What precedes the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            (layer, number of layers): 0 is the stem, then the blocks from 1, then the rest. What
            lies between blocks learns with the block it feeds, a stage's norm with its last block.
        """
        depths = [len(stage.blocks) for stage in self.stages]
        num_layers = sum(depths) + 2
        name = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or name[0] not in ('stem', 'stages'):
            return num_layers - 1, num_layers
        if name[0] == 'stem':
            return 0, num_layers
        stage = int(name[1])
        before = sum(depths[:stage])
        if name[2] == 'blocks':
            return before + int(name[3]) + 1, num_layers
        if name[2] == 'norm':
            return before + depths[stage], num_layers
        is_first = stage == 0 and not hasattr(self, 'stem')
        return (0 if is_first else before + 1), num_layers

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

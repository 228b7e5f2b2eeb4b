"""The base class: what every backbone does alike, whatever it computes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from mmengine.model import BaseModule, initialize
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_NORM = dict(type='BN')  # a default; the builders copy what they are given


class BaseBackbone(BaseModule):
    """Arguments and duties that every backbone here has; a subclass builds the layers.

    A subclass names its variants in ``arch_zoo``, builds what makes tokens of the image
    (``first``) and a list of modules behind it (``sequence``), each a block or with ``blocks`` of
    its own, implements ``forward_maps``, and calls ``freeze`` when it is built.

    Args:
        channels: Of each map that the model can return, finest first.
        strides: Pixels of the image per position, of the same maps.
        out_indices: Which of them are returned, in this order; negative counts from the end.
        frozen_stages: 0 freezes what makes the tokens, k also the first k of the sequence: no
            gradient, and eval mode even in training; -1 freezes nothing.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` loads strictly, see
            :class:`mmdense.serialization.loading.StrictPretrainedInit`; other initializers of
            mmengine replace the model's own; ``None`` initializes from scratch.

    Raises:
        ValueError: For a stage that the model does not have.
    """

    arch_zoo: dict[str, dict] = {}
    first = 'stages.0.downsample'
    sequence = 'stages'
    # A pretrained file may hold these in another shape: they then keep their fresh values.
    may_change_shape: str | None = None
    # Norms that only some uses of a model have (classification, dense): a pretrained file may lack
    # them, or hold them beside what this use needs.
    may_be_absent: str | None = None

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        out_indices: int | Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(init_cfg)
        number = len(channels)
        out_indices = (out_indices,) if isinstance(out_indices, int) else out_indices
        if not all(-number <= i < number for i in out_indices):
            raise ValueError(
                f'out_indices={tuple(out_indices)}: this backbone has {number} stages, '
                f'so each index lies in [{-number}, {number - 1}]'
            )
        if not -1 <= frozen_stages <= number:
            raise ValueError(f'frozen_stages={frozen_stages} is not in [-1, {number}]')
        # Channels, stride and module of every map, in timm's words.
        self.feature_info = [
            dict(num_chs=dim, reduction=stride, module=f'{self.sequence}.{i}')
            for i, (dim, stride) in enumerate(zip(channels, strides))
        ]
        self.out_indices = tuple(i % number for i in out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, in_channels, H, W) -> what is returned of the map of each out index."""
        maps = self.forward_maps(x, self.out_indices)
        return tuple(self.finish(i, maps[i]) for i in self.out_indices)

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        """The maps (B, C, H/s, W/s), channels_last, of some modules of the sequence, of which none
        behind the last of these runs.

        Args:
            x: Image (B, in_channels, H, W).
            indices: Which ones, counted from 0.
        """
        raise NotImplementedError

    def finish(self, i: int, feature: Tensor) -> Tensor:
        """What is returned of map ``i``: itself, or what a norm of the output makes of it."""
        return feature

    def truncate(self, last: int, keep_norms: bool) -> None:
        """Keep what makes map ``last``, which alone is returned from now on.

        Args:
            last: The map, counted from 0.
            keep_norms: Also keep norms of the output, if it was the last map before, too.
        """
        sequence = self.get_submodule(self.sequence)
        if last + 1 < len(sequence) or not keep_norms:
            for name, _ in list(self.named_children()):
                if re.fullmatch(r'norm\d*', name):
                    setattr(self, name, None)
        setattr(self, self.sequence, sequence[: last + 1])
        self.out_indices = (last,)

    @classmethod
    def get_arch(cls, arch: str | dict) -> dict:
        """The settings of a variant: a copy of the zoo's row, or of the dict given.

        Raises:
            ValueError: For an unknown name, a dict with other keys than the zoo's rows, or lists of
                unequal length where each has one value per stage.
        """
        if isinstance(arch, dict):
            rows = [set(row) for row in cls.arch_zoo.values()]
            missing, unknown = set.intersection(*rows) - set(arch), set(arch) - set.union(*rows)
            if missing or unknown:
                problems = [f'lacks {sorted(missing)}'] if missing else []
                problems += [f'has unknown {sorted(unknown)}'] if unknown else []
                raise ValueError(f'{cls.__name__} arch {" and ".join(problems)}')
            cls.check_per_stage({k: v for k, v in arch.items() if isinstance(v, Sequence)})
            return dict(arch)
        if arch not in cls.arch_zoo:
            raise ValueError(
                f"unknown {cls.__name__} arch '{arch}'; known are {', '.join(cls.arch_zoo)}"
            )
        return dict(cls.arch_zoo[arch])

    @classmethod
    def check_per_stage(cls, lists: dict[str, Sequence]) -> None:
        """Raise ``ValueError`` unless all lists, which have one value per stage, are as long."""
        lengths = {key: len(values) for key, values in lists.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f'{cls.__name__} needs one value per stage in each list; got {lengths}'
            )

    def init_weights(self) -> None:
        """Initialize every layer, then load the pretrained file that ``init_cfg`` names, if any."""
        if self.is_init:
            return
        pretrained = self.pretrained_cfgs
        others = [entry for entry in self.init_cfgs if entry not in pretrained]
        if others:
            initialize(self, others)
        else:
            self.apply(self.init_layer)
        if pretrained:
            with DefaultScope.overwrite_default_scope('mmdense'):  # whose 'Pretrained' is strict
                initialize(self, pretrained)
        self.is_init = True

    def check_sources(self) -> None:
        """Raise ``UserError`` unless it finds what it starts from beside ``init_cfg``."""

    @property
    def init_cfgs(self) -> list[dict]:
        """The entries of ``init_cfg``, which may be one or several."""
        entries = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        return [entry for entry in entries if entry]

    @property
    def pretrained_cfgs(self) -> list[dict]:
        """Those of them that name a pretrained file."""
        return [entry for entry in self.init_cfgs if entry.get('type') == 'Pretrained']

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

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` covers."""
        if self.frozen_stages < 0:
            return []
        sequence = self.get_submodule(self.sequence)
        return [self.get_submodule(self.first), *sequence[: self.frozen_stages]]

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

    def count_blocks(self) -> list[int]:
        """Blocks of each module of the sequence; one that has none of its own is one."""
        return [len(getattr(m, 'blocks', (m,))) for m in self.get_submodule(self.sequence)]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Where a parameter lies, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What precedes the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            (layer, number of layers): 0 makes the tokens, then the blocks from 1, then the rest.
            What lies between blocks learns with the block it feeds, a stage's norm with its last.
        """
        depths = self.count_blocks()
        num_layers = sum(depths) + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        if name.startswith(f'{self.first}.'):
            return 0, num_layers
        if not name.startswith(f'{self.sequence}.'):
            return num_layers - 1, num_layers
        number, part, *rest = name.removeprefix(f'{self.sequence}.').split('.')
        before = sum(depths[: int(number)])
        if part == 'blocks':
            return before + int(rest[0]) + 1, num_layers
        if part == 'norm':
            return before + depths[int(number)], num_layers
        return before + 1, num_layers

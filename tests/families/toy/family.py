"""A fifth family in one module: a pyramid of residual convolutions, and all that is said of it."""

from collections.abc import Collection, Iterator, Sequence

import torch
from mmcv.cnn.bricks import DropPath
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from ..backbones.base import BaseBackbone
from ..backbones.layers import run_block
from ..registry import MODELS
from .family import Family, Published, Totals, Variant
from .naming import Names, Naming, State
from .shapes import count_blocks, read_sizes
from .views import Calls, Query, View, Watch, place, pyramid_features, stride_of


class Block(nn.Module):
    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm = nn.GroupNorm(1, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv(self.norm(x)).relu())


class Stage(nn.Module):
    def __init__(self, downsample: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = run_block(block, with_cp, x)
        return x


@MODELS.register_module()
class Toy(BaseBackbone):
    arch_zoo = {'nano': dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1))}

    def __init__(
        self,
        arch: str | dict = 'nano',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = self.get_arch(arch)
        dims = arch['embed_dims']
        strides = [4 * 2**i for i in range(len(dims))]
        super().__init__(dims, strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        rates = iter(calculate_drop_path_rates(drop_path_rate, arch['depths']))
        self.stages = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(dims, arch['depths'])):
            conv = (
                nn.Conv2d(dims[i - 1], dim, 3, 2, 1) if i else nn.Conv2d(in_channels, dim, 7, 4, 3)
            )
            self.stages.append(Stage(conv, [Block(dim, next(rates)) for _ in range(depth)]))
        self.freeze()

    def forward_maps(self, x: Tensor, indices: Collection[int]) -> dict[int, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        maps = {}
        for i, stage in zip(range(max(indices) + 1), self.stages):
            x = stage(x, self.with_cp)
            maps[i] = x
        return maps


def published_names(state: State) -> Names:
    return [
        ('^down{}.', 'stages.{}.downsample.'),
        ('^body{}.{}.', 'stages.{}.blocks.{}.'),
        ('^classifier.', 'head.fc.'),
    ]


def read_options(state: State) -> dict:
    depths = count_blocks(state)
    dims = read_sizes(state, 'stages.{}.downsample.weight', len(depths))
    return dict(arch=dict(embed_dims=dims, depths=depths))


def show_residuals(backbone: Toy, calls: Calls, query: Query) -> Iterator[View]:
    for name, call in calls.items():
        change = (call.out - call.args[0]).norm(dim=1)
        yield View(place(name), change, ('change',), stride_of(backbone, name))


def count(totals: Totals) -> Published:
    return Published(totals.params / 1e3, 2 * totals.macs / 1e9)


FAMILY = Family(
    name='toy',
    backbone=Toy,
    variants={'toy_nano': Variant('toy_n_in1k', 0.9)},
    naming=Naming(r'body\d\.', published_names),
    read_options=read_options,
    watches=(
        Watch('residuals', 'mmdense.Toy', r'blocks\.\d+$', show_residuals),
        Watch('features', 'mmdense.Toy', r'^stages\.\d+$', pyramid_features),
    ),
    count=count,
    tiny={'Toy': dict(arch='nano')},
)

"""What the rest of the package must know of an architecture, beside what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..backbones.base import BaseBackbone
from .naming import Naming, State
from .views import Watch


class Variant(NamedTuple):
    """A published variant: its config ``<family>/<config>.py``, and its recipe's test crop."""

    config: str
    crop_pct: float  # of the shorter side


class Totals(NamedTuple):
    """What authors count in their ways: parameters, those of rank >= 2, and of one image: MACs,
    elements that layer norms and batch norms put out, and how many MACs more transposed
    convolutions have at the size of their output."""

    params: int
    matrix_params: int
    macs: int
    layer_norm: int
    batch_norm: int
    transposed: int


class Published(NamedTuple):
    """Parameters in the authors' millions, and FLOPs in billions."""

    params: float
    flops: float


def count_plainly(totals: Totals) -> Published:
    """Parameters by 1e6, a FLOP is a MAC."""
    return Published(totals.params / 1e6, totals.macs / 1e9)


@dataclass(frozen=True, eq=False)
class Family:
    """One architecture: all that is said of it outside its own equations and configs.

    Args:
        name: Folder of its configs and metafile below ``configs/``.
        backbone: The registered class.
        variants: timm's names of the published variants.
        naming: How its authors name the backbone's tensors.
        read_options: The backbone's options that names and shapes of its tensors tell, ours, for
            networks that its code can build and nobody published. May raise what a missing tensor
            raises (``KeyError``), or ``ValueError``.
        untold: What no tensor tells, and ``read_options`` takes from the paper.
        head_naming: How they name those of their own segmentation heads (``decode_head``).
        watches: What there is to see, in the backbone and in heads of the same paper.
        count: The authors' way to count parameters and FLOPs.
        first_conv: The convolution that sees the image, which timm fits to other channels; None
            where there is none.
        pool_size: Sides of a classifier's last map, of an image of 224 x 224.
        dense: Options of the backbone that dense use needs and classification does not.
        own: Configs for a folder of somebody's own data that a CPU can train, by what the data are.
        tiny: Small networks that reach every option, for the contract suite: options by name.
    """

    name: str
    backbone: type[BaseBackbone]
    variants: dict[str, Variant]
    naming: Naming
    read_options: Callable[[State], dict]
    untold: tuple[str, ...] = ()
    head_naming: tuple[Naming, ...] = ()
    watches: tuple[Watch, ...] = ()
    count: Callable[[Totals], Published] = count_plainly
    first_conv: str | None = None
    pool_size: tuple[int, int] = (7, 7)
    dense: dict[str, object] = field(default_factory=lambda: dict(out_indices=(0, 1, 2, 3)))
    own: dict[str, str] = field(default_factory=dict)
    tiny: dict[str, dict] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """How configs name the backbone: ``'mmdense.PaCaViT'``."""
        return f'mmdense.{self.backbone.__name__}'

"""The families of backbones: one module each, and this list, by which all else finds them.

A module of this folder that has a ``FAMILY`` is in the list, see CONTRIBUTING.md; ``WATCHES``
alone makes something to see of backbones that are no family's.
"""

from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from .family import Family
from .views import Watch

_modules = [import_module(f'{__name__}.{module.name}') for module in iter_modules(__path__)]
FAMILIES: tuple[Family, ...] = tuple(m.FAMILY for m in _modules if hasattr(m, 'FAMILY'))
# What there is to see: of the families, and of what is no family.
WATCHES: tuple[Watch, ...] = (
    *(watch for family in FAMILIES for watch in family.watches),
    *(watch for m in _modules for watch in getattr(m, 'WATCHES', ())),
)


def find_family(backbone: nn.Module) -> Family | None:
    """The family of a built backbone; None for one of the toolboxes' or a user's."""
    return next((family for family in FAMILIES if isinstance(backbone, family.backbone)), None)

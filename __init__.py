"""mmdense: published vision backbones for dense prediction on OpenMMLab.

Importing the package makes the stack whole (see :mod:`mmdense.engine.compat`); the backbones
themselves are imported by the registries when a config names one.
"""

from .engine import compat

__version__ = '0.1.0'

compat.apply()

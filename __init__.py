"""mmdense: published vision backbones for dense prediction on OpenMMLab.

Importing the package makes the stack whole (see :mod:`mmdense.compat`) and registers the
backbones, for the toolboxes by class name and for timm by variant. From then on mmengine
reads files through :mod:`mmdense.serialization.doors`, which runs nothing that is in them.
"""

from . import compat

__version__ = '0.1.0'

compat.apply()

if __name__ == 'mmdense':  # pytest imports this file once more, as a package named like its folder
    from . import timm_models  # noqa: F401  (imports the toolboxes, so it comes after their mending)
    from .serialization import doors

    doors.install()

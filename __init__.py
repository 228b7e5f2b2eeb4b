"""mmdense: published vision backbones for dense prediction on OpenMMLab.

Importing the package makes the stack whole (see :mod:`mmdense.compat`) and registers the
backbones, for the toolboxes by class name and for timm by variant. From then on mmengine reads
checkpoints and annotations through :mod:`mmdense.serialization.doors`, which runs nothing that is
in them, and writes files whole or not at all (:mod:`mmdense.files`).
"""

from . import compat, files

__version__ = '0.1.0'

compat.apply()

if __name__ == 'mmdense':  # pytest imports this file once more, as a package named like its folder
    files.replace_local_backend()
    from . import timm_models  # noqa: F401  (imports the toolboxes, so it comes after their mending)
    from .serialization import doors, hubs

    doors.install()
    hubs.install()

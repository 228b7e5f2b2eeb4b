"""Which files are read as pictures, and why one was not."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable

from mmengine.dataset import BaseDataset
from PIL import Image

from ..compat import MAX_PIXELS
from ..errors import UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
ALLOW_OUTSIDE = 'MMDENSE_ALLOW_OUTSIDE'


def guard_datasets() -> None:
    """Let data sets hand out no sample whose files lie outside their folders."""
    if hasattr(BaseDataset.get_data_info, 'guarded'):
        return

    def guard(get_data_info: Callable) -> Callable:
        @functools.wraps(get_data_info)
        def get(self: BaseDataset, idx: int) -> dict:
            info = get_data_info(self, idx)
            if os.environ.get(ALLOW_OUTSIDE) != '1':
                check_inside(self, info)
            return info

        get.guarded = True
        return get

    BaseDataset.get_data_info = guard(BaseDataset.get_data_info)


def check_inside(dataset: BaseDataset, info: dict) -> None:
    """Raise :class:`UserError` when a file of a sample is outside the data set's folders.

    Paths are compared as they are written: links inside may lead elsewhere.

    Args:
        dataset: Its ``data_root`` and ``data_prefix``, or without both the working directory.
        info: A sample's; what its keys that end in ``path`` name.
    """
    folders = [dataset.data_root, *dataset.data_prefix.values()]
    folders = [folder for folder in folders if folder] or ['.']
    for key, path in info.items():
        if key.endswith('path') and isinstance(path, str):
            if not any(is_below(path, folder) for folder in folders):
                raise UserError(
                    f"'{path}', which the annotations name, is outside the data set's folder "
                    f"'{folders[0]}': mend them or data_root, or set {ALLOW_OUTSIDE}=1"
                )


def is_below(path: str, folder: str) -> bool:
    """Whether a path is written as one below a folder; addresses are only below addresses."""
    if '://' in folder:
        return path.startswith(f'{folder.rstrip("/")}/') and '..' not in path.split('/')
    folder = os.path.abspath(folder).rstrip('/')
    return '://' not in path and os.path.abspath(path).startswith(f'{folder}/')


def check_regular(path: object) -> None:
    """Raise :class:`UserError` for a device, pipe or folder, before it is opened."""
    if not isinstance(path, str) or '://' in path:
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # reading tells why
    if not stat.S_ISREG(mode):
        raise UserError(f"'{path}' cannot be read as an image: it is no regular file")


def explain(path: object) -> str:
    """What is to say of a picture that could not be read: of its size, if that is the reason."""
    limit = int(os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS', MAX_PIXELS))
    try:
        with Image.open(path) as picture:
            is_large = picture.width * picture.height > limit
    except Exception as error:  # else it is no picture in PIL's eyes either
        is_large = isinstance(error, Image.DecompressionBombError)
    return f': more pixels than OPENCV_IO_MAX_IMAGE_PIXELS={limit} allows' if is_large else ''

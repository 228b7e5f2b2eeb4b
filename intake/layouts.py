"""Which layout a folder has, and reading it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError
from . import class_folders, coco, masks, voc, yolo
from .code import OPENING
from .folder import Folder, find_strange_names, is_text

LAYOUTS = (coco, yolo, voc, masks, class_folders)


def read_folder(path: str | Path) -> Folder:
    """A folder in the one layout that it has.

    Raises:
        UserError: When it is none, has none or several of the layouts, or a name that no config
            can hold.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"'{path}' is no folder; name the one that holds your pictures")
    found = {layout: seen for layout in LAYOUTS if (seen := layout.find(root))}
    if not found:
        looked = '; '.join(layout.LOOKED_FOR for layout in LAYOUTS)
        raise UserError(f"'{path}' has no layout that is known; looked for were {looked}")
    if len(found) > 1:
        seen = ' and '.join(f'{layout.NAME} ({seen})' for layout, seen in found.items())
        raise UserError(f"'{path}' has several layouts: {seen}; move all but one elsewhere")
    folder = next(iter(found)).read(root)
    check_names(folder)
    folder.faults += find_strange_names(folder)
    return folder


def check_names(folder: Folder) -> None:
    """Raise :class:`UserError` for a class, file or folder whose name a config would run."""
    pictures = [folder.name(sample.picture) for _, sample in folder.samples()]
    files = [str(settings.get('ann_file', '')) for settings in folder.native.values()]
    for name in (os.path.abspath(folder.root), *folder.classes, *pictures, *files):
        if not is_text(name):
            raise UserError(f'{name!a} is no text in UTF-8: rename it')
        if OPENING in name:
            raise UserError(
                f"{name!a} has '{OPENING}' in its name, which configs replace: rename it"
            )

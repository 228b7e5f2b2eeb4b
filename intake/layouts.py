"""Which layout a folder has, and reading it."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from . import class_folders, coco, masks, voc, yolo
from .folder import Folder, find_strange_names

LAYOUTS = (coco, yolo, voc, masks, class_folders)


def read_folder(path: str | Path) -> Folder:
    """A folder in the one layout that it has.

    Raises:
        UserError: When it is none, or has none or several of the layouts.
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
    folder.faults += find_strange_names(folder)
    return folder

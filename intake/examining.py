"""A folder from end to end: its layout, its pictures, its splits, and all that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .faults import Pictures, find_faults
from .folder import Fault, Folder
from .layouts import read_folder
from .pictures import find_alike, look
from .splitting import divide


@dataclass
class Examination:
    """What was found in a folder."""

    folder: Folder
    pictures: Pictures
    faults: list[Fault]


def examine(path: str | Path, seed: int = 0) -> Examination:
    """Read a folder, decode its pictures and look for faults.

    Args:
        path: The folder.
        seed: Draws the validation split, where there is none.

    Raises:
        UserError: When the folder has no layout that is known.
    """
    folder = read_folder(path)
    pictures = look([sample.picture for _, sample in folder.samples()])
    alike = find_alike(pictures)
    divide(folder, pictures, alike, seed)
    faults = find_faults(folder, pictures, alike)
    for _, sample in folder.samples():
        sample.size = sample.size or pictures[sample.picture].size
    return Examination(folder, pictures, faults)

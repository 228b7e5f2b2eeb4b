"""Pictures with masks of the same names: PNGs whose values or colours are classes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .folder import (
    IGNORED,
    SEMANTIC,
    WHOLE,
    Fault,
    Folder,
    Sample,
    find_split,
    list_files,
    list_folders,
    list_pictures,
    read_names,
)

NAME = 'masks'
LOOKED_FOR = 'PNG masks in masks/, labels/ or annotations/ beside images/'
IMAGE_FOLDERS = ('images', 'img_dir', 'JPEGImages')
MASK_FOLDERS = ('masks', 'labels', 'annotations', 'ann_dir', 'SegmentationClass')
NAMES = ('classes.txt', 'labels.txt', 'labelmap.txt')
SUFFIXES = ('', '_mask', '_label', '_labels', '_seg')  # of a mask's name behind its picture's
MAX_CLASSES = 255  # values of a mask that are found, not named
FEW = 10  # values that are named in a fault
INDEX_MODES = ('L', 'P', '1', 'I', 'I;16')
Code = int | tuple[int, int, int]  # an index, or a colour


def find(root: Path) -> str | None:
    """What of this layout lies in a folder."""
    found = [masks for _, _, masks in find_places(root) if list_masks(masks)]
    return ', '.join(f'{path.relative_to(root)}/*.png' for path in found) or None


def find_places(root: Path) -> list[tuple[str, Path, Path]]:
    """Splits with their folders of pictures and of masks."""
    places = []
    for outer in [root, *(folder for folder in list_folders(root) if find_split(folder.name))]:
        pictures = next((outer / n for n in IMAGE_FOLDERS if (outer / n).is_dir()), None)
        masks = next((outer / n for n in MASK_FOLDERS if holds_masks(outer / n)), None)
        if pictures is None or masks is None:
            continue
        names = [f.name for f in list_folders(pictures) if find_split(f.name)]
        if outer != root:
            places.append((find_split(outer.name), pictures, masks))
        elif names:
            places += [(find_split(name), pictures / name, masks / name) for name in names]
        else:
            places.append((WHOLE, pictures, masks))
    return places


def list_masks(folder: Path) -> list[Path]:
    return list_files(folder, ['.png', '.bmp', '.tif', '.tiff'], deep=True)


def holds_masks(folder: Path) -> bool:
    return folder.is_dir() and bool(list_masks(folder))


def read(root: Path) -> Folder:
    """All splits; classes are named by a text file, or by the values that the masks have."""
    folder = Folder(root, NAME, SEMANTIC, [], {})
    for split, pictures, masks in find_places(root):
        if split == 'test' and not masks.is_dir():
            folder.notes.append(f"'{folder.name(pictures)}' has no masks and is left out")
            continue
        samples, is_plain = pair(folder, pictures, masks)
        folder.add(split, samples)
        if split != WHOLE and samples and is_plain:
            folder.native[split] = dict(
                data_prefix=dict(img_path=folder.name(pictures), seg_map_path=folder.name(masks)),
                img_suffix=samples[0].picture.suffix,
                seg_map_suffix=samples[0].mask.suffix,
            )
    masked = [sample for _, sample in folder.samples() if sample.mask]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(count_values, [sample.mask for sample in masked]))
    for sample, values in zip(masked, found):
        sample.values = values
    choose_codes(folder, [values for values in found if values])
    find_faults(folder, masked)
    folder.palette = find_palette(folder, masked)
    if [*folder.codes] != [*range(len(folder.classes))]:
        folder.native = {}
    return folder


def pair(folder: Folder, pictures: Path, masks: Path) -> tuple[list[Sample], bool]:
    """Samples of one split, and whether their names are as the toolbox expects them."""
    there = {path.relative_to(masks).with_suffix(''): path for path in list_masks(masks)}
    samples = []
    for picture in list_pictures(pictures, deep=True):
        stem = picture.relative_to(pictures).with_suffix('')
        names = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
        mask = next((there.pop(name) for name in names if name in there), None)
        samples.append(Sample(picture, folder.name(mask or picture), mask=mask))
        if mask is None:
            text = f"no mask of this name is in '{folder.name(masks)}'"
            folder.faults.append(Fault('missing mask', samples[-1].where, text))
    for mask in there.values():
        text = f"no picture of this name is in '{folder.name(pictures)}'"
        folder.faults.append(Fault('missing partner', folder.name(mask), text))
    masked = [sample for sample in samples if sample.mask]
    suffixes = {(sample.picture.suffix, sample.mask.suffix) for sample in masked}
    same_stems = all(sample.picture.stem == sample.mask.stem for sample in masked)
    return samples, len(suffixes) == 1 and same_stems and len(masked) == len(samples)


def read_codes(path: Path) -> np.ndarray:
    """A mask (H, W): indices, or colours as 256 * (256 * red + green) + blue, plus 2^24.

    Raises:
        OSError: When it cannot be read.
    """
    with Image.open(path) as image:
        if image.mode in INDEX_MODES:
            return np.asarray(image).astype(np.int64)
        colours = np.asarray(image.convert('RGB')).astype(np.int64)
    return 2**24 + (colours * (2**16, 2**8, 1)).sum(-1)


def count_values(path: Path) -> dict[Code, int] | None:
    """How many pixels have each value or colour; None when the file cannot be read."""
    try:
        values, counts = np.unique(read_codes(path), return_counts=True)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return {decode(value): count for value, count in zip(values.tolist(), counts.tolist())}


def decode(value: int) -> Code:
    """An index, or the red, green and blue of a colour."""
    return value if value < 2**24 else (value >> 16 & 255, value >> 8 & 255, value & 255)


def encode(code: Code) -> int:
    """The other way."""
    return code if isinstance(code, int) else 2**24 + (code[0] << 16) + (code[1] << 8) + code[2]


def choose_codes(folder: Folder, found: Iterable[dict[Code, int]]) -> None:
    """Name the classes, and say which value of the masks each has."""
    values = sorted({value for counts in found for value in counts}, key=encode)
    file = next((folder.root / n for n in NAMES if (folder.root / n).is_file()), None)
    coloured = any(isinstance(value, tuple) for value in values)
    if file is not None:
        rows = [parse_row(line) for line in read_names(file) if not line.startswith('#')]
        folder.classes = [name for name, _ in rows]
        colours = [colour for _, colour in rows]
        if coloured and all(colours):
            folder.codes = {colour: label for label, colour in enumerate(colours)}
            return
        if not coloured:
            folder.codes = {label: label for label in range(len(rows))}
            if {*values} == {0, 255} and len(rows) == 2:
                folder.codes = {0: 0, 255: 1}
            return
        if len(values) == len(rows):
            folder.codes = {value: label for label, value in enumerate(values)}
            folder.notes.append(f"'{file.name}' gives no colours: they follow in order of value")
        return
    if values == [0, 255]:
        folder.classes, folder.codes = ['background', 'foreground'], {0: 0, 255: 1}
    else:
        values = [value for value in values if value != IGNORED][:MAX_CLASSES]
        folder.codes = {value: label for label, value in enumerate(values)}
        folder.classes = [name_code(value) for value in values]
    folder.notes.append(f'no {NAMES[0]} was found: classes are named by the values of the masks')


def parse_row(line: str) -> tuple[str, tuple[int, int, int] | None]:
    """A class's name and colour: 'name', 'name 255 0 0' or 'name:255,0,0:...'."""
    words = line.replace(',', ' ').replace(':', ' ').split()
    colour = [int(word) for word in words[-3:] if word.isdecimal() and int(word) < 256]
    if len(words) > 3 and len(colour) == 3:
        return ' '.join(words[:-3]), tuple(colour)
    return line.strip(' :'), None


def name_code(code: Code) -> str:
    """An index, or a colour's digits without the # that comments begin with."""
    return str(code) if isinstance(code, int) else '{:02x}{:02x}{:02x}'.format(*code)


def find_faults(folder: Folder, samples: list[Sample]) -> None:
    """Masks that cannot be read, or have values that are no class."""
    for sample in samples:
        where = folder.name(sample.mask)
        if sample.values is None:
            folder.faults.append(Fault('unreadable mask', where, 'it cannot be read as a picture'))
            continue
        strange = [v for v in sample.values if v not in folder.codes and v != IGNORED]
        if strange:
            names = ', '.join(map(name_code, strange[:FEW])) + (', ...' if strange[FEW:] else '')
            known = f'of the {len(folder.classes)} classes'
            folder.faults.append(Fault('mask values', where, f'{names} are none {known}'))


def find_palette(folder: Folder, samples: list[Sample]) -> list | None:
    """The colours of the classes: the masks' own, or those of the first one's palette."""
    if all(isinstance(code, tuple) for code in folder.codes):
        return [list(code) for code in folder.codes] or None
    readable = [sample for sample in samples if sample.values]
    if not readable or not readable[0].mask:
        return None
    with Image.open(readable[0].mask) as image:
        flat = (image.getpalette() or []) if image.mode == 'P' else []
    colours = [flat[3 * code : 3 * code + 3] for code in folder.codes]
    return colours if all(len(colour) == 3 for colour in colours) else None


def relabel(values: np.ndarray, codes: dict[Code, int]) -> np.ndarray:
    """A mask (H, W) of labels, from what :func:`read_codes` gives; 255 for what has none."""
    labels = np.full(values.shape, IGNORED, np.uint8)
    for code, label in codes.items():
        labels[values == encode(code)] = label
    return labels

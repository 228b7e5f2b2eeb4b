"""Everything that is wrong with a data set, each with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..engine.picture_files import read_size
from .folder import INSTANCES, Fault, Folder, Sample
from .kinds import KINDS
from .pictures import Picture
from .shapes import find_shape_faults

Pictures = dict[Path, Picture]
Pair = tuple[Path, Path]


def find_faults(folder: Folder, pictures: Pictures, alike: list[Pair]) -> list[Fault]:
    """What reading found, and what the samples show; those that stop a training come first.

    Args:
        folder: The data set, with its splits.
        pictures: What its files are.
        alike: Pairs of files that look the same.
    """
    faults = [
        *folder.faults,
        *find_picture_faults(folder, pictures),
        *find_object_faults(folder, pictures),
        *find_mask_faults(folder, pictures),
        *find_class_faults(folder),
        *find_duplicates(folder, pictures),
        *find_lookalikes(folder, alike),
    ]
    order = [*KINDS]
    return sorted(faults, key=lambda f: (not KINDS[f.kind].stops, order.index(f.kind)))


def stops(faults: list[Fault]) -> bool:
    """Whether any is more than a warning."""
    return any(KINDS[fault.kind].stops for fault in faults)


def find_picture_faults(folder: Folder, pictures: Pictures) -> Iterator[Fault]:
    """Files that are missing or damaged, and sizes that are not as stated."""
    for _, sample in folder.samples():
        picture = pictures[sample.picture]
        name = folder.name(sample.picture)
        if picture.fault:
            text = picture.text if sample.where == name else f"'{name}': {picture.text}"
            yield Fault(picture.fault, sample.where, text)
            continue
        width, height = picture.size
        if picture.turned:
            stored = '{} x {}'.format(*picture.stored)
            yield Fault('turned picture', name, f'seen as {width} x {height}, stored as {stored}')
        if sample.size and sample.size != picture.size:
            stated = '{} x {}'.format(*sample.size)
            text = f"'{name}' has {width} x {height}, stated is {stated}"
            yield Fault('picture size', sample.where, text)


def find_object_faults(folder: Folder, pictures: Pictures) -> Iterator[Fault]:
    """Boxes and shapes; an object of an unknown class was told when it was read."""
    shaped = folder.task == INSTANCES
    for _, sample in folder.samples():
        size = pictures[sample.picture].size
        seen = set()
        for instance in sample.instances:
            for kind, text in find_shape_faults(instance, size, shaped):
                yield Fault(kind, instance.where, text)
            key = (instance.label, str(instance.box), str(instance.polygons), str(instance.rle))
            if key in seen:
                yield Fault('repeated object', instance.where, 'the same class, box and shape')
            seen.add(key)


def find_mask_faults(folder: Folder, pictures: Pictures) -> Iterator[Fault]:
    """Masks of another size; what their values are was told when they were read."""
    for _, sample in folder.samples():
        if sample.mask is None or sample.values is None:
            continue
        wanted, size = pictures[sample.picture].size, read_size(str(sample.mask))
        if wanted and size != wanted:
            text = '{} x {}, the picture has {} x {}'.format(*size, *wanted)
            yield Fault('mask size', folder.name(sample.mask), text)


def count_classes(folder: Folder, samples: list[Sample]) -> Counter[int]:
    """How many objects, pixels or pictures of each class samples have, by label."""
    found: Counter[int] = Counter()
    for sample in samples:
        if sample.label is not None:
            found[sample.label] += 1
        for value, number in (sample.values or {}).items():
            if value in folder.codes:
                found[folder.codes[value]] += number
        found.update(i.label for i in sample.instances if i.label is not None)
    return found


def find_class_faults(folder: Folder) -> Iterator[Fault]:
    """Classes that training never sees, and splits without a picture."""
    for split in folder.splits.keys() | {'train'}:
        if not folder.splits.get(split):
            yield Fault('empty split', split, 'it has no picture')
    trained = count_classes(folder, folder.splits.get('train', []))
    for split in folder.splits.keys() - {'train'}:
        for label in sorted(count_classes(folder, folder.splits[split]).keys() - trained.keys()):
            yield Fault('one-sided class', split, f"'{folder.classes[label]}' is not in train")
    counts = count_classes(folder, [sample for _, sample in folder.samples()])
    for label, name in enumerate(folder.classes):
        if not counts[label]:
            yield Fault('unused class', 'all splits', f"'{name}'")


def find_duplicates(folder: Folder, pictures: Pictures) -> Iterator[Fault]:
    """Samples whose files are equal, or are one file."""
    first: dict[str, tuple[str, Sample]] = {}
    for split, sample in folder.samples():
        digest = pictures[sample.picture].digest
        if not digest:
            continue
        other_split, other = first.setdefault(digest, (split, sample))
        if other is not sample:
            kind = 'duplicate' if split == other_split else 'duplicate across'
            kind = kind if sample.label == other.label else 'two classes'
            name = folder.name(sample.picture)
            text = f"{split} '{name}' equals {other_split} '{folder.name(other.picture)}'"
            yield Fault(kind, sample.where, text, (sample.picture, other.picture))


def find_lookalikes(folder: Folder, alike: list[Pair]) -> Iterator[Fault]:
    """Samples whose pictures look the same."""
    splits = {sample.picture: split for split, sample in folder.samples()}
    for a, b in alike:
        same = splits[a] == splits[b]
        kind = 'near duplicate' if same else 'near duplicate across'
        text = f"{splits[b]} '{folder.name(b)}' looks like {splits[a]} '{folder.name(a)}'"
        yield Fault(kind, folder.name(b), text, (b, a))

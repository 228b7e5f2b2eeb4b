"""A data set without its faults: what is bad is mended or left out, and all of it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..engine.picture_files import read_size
from .examining import Examination
from .folder import IGNORED, INSTANCES, Folder, Instance, Sample
from .pictures import Picture
from .shapes import find_box, find_rle_fault, find_shape_faults, is_polygon

CLIPPED = 'boxes and polygons clipped to their picture'
DROPPED = 'objects dropped: {}'
LEFT_OUT = 'pictures left out: {}'
ALIKE = 'objects left out with pictures that equal others'
LOST = ('malformed file', 'malformed line', 'missing partner', 'outside', 'double image id')


def mend(examination: Examination, in_place: bool) -> tuple[Folder, list[str]]:
    """The samples that are sound, and what was done to the others, a line each.

    Args:
        examination: What was found.
        in_place: The pictures stay as they are; else they are to be copied by
            :func:`mmdense.intake.copying.write_copy`, which turns what EXIF data turn.
    """
    folder, pictures, said = examination.folder, examination.pictures, Counter()
    known = find_first(examination)
    joined = join_objects(examination, known)
    splits: dict[str, list[Sample]] = {}
    for split, samples in folder.splits.items():
        splits[split] = []
        for sample in samples:
            picture = pictures[sample.picture]
            reason = find_reason(folder, sample, picture, known.get(picture.digest), in_place)
            if reason:
                said[LEFT_OUT.format(reason)] += 1
                lost = [] if picture.fault else sample.instances
                said[ALIKE] += sum(i not in joined.get(picture.digest, []) for i in lost)
            else:
                whole = replace(sample, instances=joined[picture.digest])
                splits[split].append(mend_sample(folder, whole, picture, said))
    for fault in folder.faults:
        if fault.kind in LOST:
            said[f'annotations left out: {fault.kind}'] += 1
        if fault.kind == 'strange name':
            said[LEFT_OUT.format(fault.kind)] += 1
    splits = {split: samples for split, samples in splits.items() if samples}
    mended = replace(folder, splits=splits, faults=[], native={})
    return mended, [f'{number} {line}' for line, number in sorted((+said).items())]


def find_first(examination: Examination) -> dict[str, Sample]:
    """The sample that is kept of each content: one that is not trained on, if there is one.

    None is where the content is of two classes.
    """
    kept: dict[str, Sample] = {}
    contested = set()
    for _, sample in sorted(examination.folder.samples(), key=lambda s: s[0] == 'train'):
        digest = examination.pictures[sample.picture].digest
        if kept.setdefault(digest, sample).label != sample.label:
            contested.add(digest)
    return {digest: sample for digest, sample in kept.items() if digest not in contested}


def join_objects(examination: Examination, known: dict[str, Sample]) -> dict[str, list[Instance]]:
    """The objects of each content: its sample's, and those of other entries of the same file."""
    splits = {id(sample): split for split, sample in examination.folder.samples()}
    joined = {digest: [*kept.instances] for digest, kept in known.items()}
    for split, sample in examination.folder.samples():
        digest = examination.pictures[sample.picture].digest
        kept = known.get(digest)
        if kept is None or kept is sample or splits[id(kept)] != split:
            continue
        if (kept.picture, kept.size) == (sample.picture, sample.size):
            joined[digest] += [i for i in sample.instances if i not in joined[digest]]
    return joined


def find_frame(sample: Sample, picture: Picture) -> tuple[tuple[int, int], bool]:
    """The (width, height) that annotations count in, and whether that is of the turned picture."""
    stated = read_size(str(sample.mask)) if sample.mask else sample.size
    as_stored = picture.turned and stated == picture.stored != picture.size
    return (picture.stored, False) if as_stored else (picture.size, True)


def find_reason(
    folder: Folder, sample: Sample, picture: Picture, kept: Sample | None, in_place: bool
) -> str | None:
    """Why a sample is left out, if it is."""
    if picture.fault:
        return picture.fault
    if kept is not sample:
        return 'duplicate' if kept else 'two classes'
    size, upright = find_frame(sample, picture)
    if in_place and not upright:
        return 'turned by EXIF data after they were annotated'
    if folder.codes and sample.mask is None:
        return 'missing mask'
    if sample.mask and sample.values is None:
        return 'unreadable mask'
    if sample.mask and read_size(str(sample.mask)) != size:
        return 'mask size'
    return None


def mend_sample(folder: Folder, sample: Sample, picture: Picture, said: Counter[str]) -> Sample:
    """A sample with its true size and the objects that are sound; what was done is counted."""
    size, upright = find_frame(sample, picture)
    if sample.size and sample.size != size:
        said['sizes stated anew'] += 1
    if picture.turned:
        said['pictures turned as their EXIF data say, or as they were annotated'] += 1
    if any(v not in folder.codes and v != IGNORED for v in sample.values or ()):
        said['masks with unlisted values, which are ignored'] += 1
    kept: dict[str, Instance] = {}
    for instance in sample.instances:
        mended, reason = mend_instance(instance, size, folder.task == INSTANCES)
        key = str((instance.label, instance.box, instance.polygons, instance.rle))
        if mended is not None and key in kept:
            mended, reason = None, 'repeated object'
        if mended is None:
            said[DROPPED.format(reason)] += 1
            continue
        if reason:
            said[reason] += 1
        kept[key] = mended
    return replace(sample, size=size, upright=upright, instances=[*kept.values()])


def mend_instance(
    instance: Instance, size: tuple[int, int], shaped: bool
) -> tuple[Instance | None, str | None]:
    """An object and what was done to it, or None and why it is dropped."""
    if instance.label is None:
        return None, 'unknown category'
    polygons = [p for p in instance.polygons or [] if is_polygon(p)]
    rle = instance.rle if instance.rle and not find_rle_fault(instance.rle, size) else None
    sound = replace(instance, polygons=polygons or None, rle=rle)
    if not shaped:
        sound = replace(sound, box=find_box(instance), polygons=None, rle=None)
    faults = [kind for kind, _ in find_shape_faults(sound, size, shaped)]
    if faults == ['box beyond']:
        clipped = [p for p in (clip(p, size) for p in polygons if shaped) if is_polygon(p)]
        if shaped and polygons and not clipped:
            return None, 'box outside'
        box = clip_box(find_box(sound), size)
        return replace(sound, box=box, polygons=clipped or None), CLIPPED
    if faults:
        return None, faults[0]
    lost = len(instance.polygons or []) - len(polygons)
    box = clip_box(find_box(sound), size)
    return replace(sound, box=box), 'objects without their bad polygons' if lost else None


def clip(polygon: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Corners that lie outside are moved to the border."""
    return [min(max(value, 0), size[i % 2]) for i, value in enumerate(polygon)]


def clip_box(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    x, y, width, height = box
    left, top, right, bottom = clip([x, y, x + width, y + height], size)
    return [left, top, right - left, bottom - top]

"""COCO json: one for each split, or a single one; also as Roboflow lays them out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ..errors import UserError
from .folder import (
    MAX_JSON,
    WHOLE,
    Fault,
    Folder,
    Instance,
    Sample,
    find_split,
    find_task,
    is_text,
    join_inside,
    list_files,
    list_folders,
    read_text,
)
from .shapes import is_number

NAME = 'COCO json'
LOOKED_FOR = 'a COCO json in annotations/, beside images/, in the folder or in train/ and valid/'
OTHER_TASKS = ('captions', 'image_info', 'panoptic', 'person_keypoints', 'stuff')
ROBOFLOW = '_annotations.coco.json'
SNIFFED = 50  # file names by which the folder of the pictures is chosen


def find(root: Path) -> str | None:
    """What of this layout lies in a folder."""
    files = find_files(root)
    return ', '.join(str(path.relative_to(root)) for path in files) or None


def find_files(root: Path) -> list[Path]:
    """The json files, from the first place that has any."""
    roboflow = [f / ROBOFLOW for f in list_folders(root) if (f / ROBOFLOW).is_file()]
    if roboflow:
        return roboflow
    for place in (root / 'annotations', root):
        files = [path for path in list_files(place, ['.json']) if is_coco(path)]
        instances = [path for path in files if path.stem.startswith('instances')]
        if files:
            return instances or files
    return []


def is_coco(path: Path) -> bool:
    """By its name or its words: a json that is cut short is one too."""
    if path.stem.startswith('instances'):
        return True
    if path.stem.startswith(OTHER_TASKS) or not path.is_file() or path.stat().st_size > MAX_JSON:
        return False
    with path.open('rb') as file:
        content = file.read()
    return b'"images"' in content and (b'"categories"' in content or b'"annotations"' in content)


def name_splits(files: list[Path]) -> dict[str, Path]:
    """The files by split.

    Raises:
        UserError: When two are of one split.
    """
    named: dict[str, Path] = {}
    for path in files:
        split = find_split(path.parent.name if path.name == ROBOFLOW else path.stem)
        split = split or (WHOLE if len(files) == 1 else path.stem)
        if split in named or split == path.stem:
            raise UserError(
                f"'{path}' and '{named.get(split, files[0])}' are not told apart: name them "
                'instances_train.json and instances_val.json, and move others elsewhere'
            )
        named[split] = path
    return named


def read(root: Path) -> Folder:
    """All of the json files."""
    folder = Folder(root, NAME, '', [], {})
    for split, path in name_splits(find_files(root)).items():
        content = load(folder, path)
        reader = Reader(folder, path, content)
        folder.add(split, reader.read())
        if reader.is_complete():
            folder.native[split] = dict(
                ann_file=folder.name(path),
                data_prefix=dict(img=folder.name(reader.pictures).removeprefix('.')),
                classes=reader.names,
            )
    folder.native = {
        split: native
        for split, native in folder.native.items()
        if native.pop('classes') == folder.classes
    }
    folder.task = find_task(folder.splits)
    return folder


def load(folder: Folder, path: Path) -> dict[str, list[dict]]:
    """The lists of a json; entries that are none are faults."""
    try:
        content = json.loads(read_text(path, MAX_JSON))
    except (OSError, ValueError, RecursionError) as error:
        folder.faults.append(Fault('malformed file', folder.name(path), f'no json: {error}'))
        content = {}
    lists = {}
    for key, words in (
        ('images', ('id', 'file_name')),
        ('annotations', ('id', 'image_id', 'category_id')),
        ('categories', ('id', 'name')),
    ):
        entries = content.get(key, []) if isinstance(content, dict) else []
        entries = entries if isinstance(entries, list) else []
        lists[key] = []
        for number, entry in enumerate(entries):
            missing = [w for w in words if not isinstance(entry, dict) or not is_plain(entry, w)]
            if missing:
                where = f'{folder.name(path)}: {key}[{number}]'
                text = f'no entry with {", ".join(missing)}'
                folder.faults.append(Fault('malformed line', where, text))
            else:
                lists[key].append(entry)
    return lists


def is_plain(entry: dict, word: str) -> bool:
    value = entry.get(word)
    return is_text(value) if isinstance(value, str) else isinstance(value, int | float)


class Reader:
    """One json of a folder.

    Args:
        folder: What it adds its classes and faults to.
        path: The file.
        content: Its lists.
    """

    def __init__(self, folder: Folder, path: Path, content: dict[str, list[dict]]) -> None:
        self.folder = folder
        self.path = path
        self.content = content
        self.names: list[str] = []
        self.pictures = self.find_pictures()

    def fault(self, kind: str, place: str, text: str) -> None:
        where = f'{self.folder.name(self.path)}: {place}'
        self.folder.faults.append(Fault(kind, where, text))

    def find_pictures(self) -> Path:
        """The folder that holds the most of the files that the json names."""
        root, stem = self.folder.root, self.path.stem.removeprefix('instances_')
        places = [root / 'images' / stem, root / stem, root / 'images', self.path.parent, root]
        split = find_split(stem)
        for folder in [*list_folders(root / 'images'), *list_folders(root)]:
            if split and find_split(folder.name) == split:
                places += [folder, folder / 'images']
        names = [image['file_name'] for image in self.content['images'][:SNIFFED]]

        def count_files(place: Path) -> int:
            paths = [join_inside(place, name, root) for name in names]
            return sum(path is not None and path.is_file() for path in paths)

        return max(filter(Path.is_dir, places), key=count_files)

    def is_complete(self) -> bool:
        """Whether the toolbox reads it as it is; COCO's evaluation takes an id of 0 for none."""
        every = self.content['annotations']
        return (
            all('width' in image and 'height' in image for image in self.content['images'])
            and all('bbox' in a and a.get('iscrowd') in (0, 1) for a in every)
            and all(type(a['id']) is int and a['id'] > 0 for a in every)
            and all(is_number(a.get('area')) and a['area'] > 0 for a in every)
            and len(self.content['categories']) == len(self.names)
        )

    def read(self) -> list[Sample]:
        """Its samples, in its order."""
        labels = self.read_categories()
        samples = self.read_images()
        ids = Counter(a['id'] for a in self.content['annotations'])
        for id_, number in ids.items():
            if number > 1:
                self.fault('double annotation id', f'annotation {id_}', f'{number} have this id')
        for annotation in self.content['annotations']:
            place = f'annotation {annotation["id"]}'
            sample = samples.get(annotation['image_id'])
            if sample is None and annotation['image_id'] in samples:
                continue
            if sample is None:
                text = f'no image has the id {annotation["image_id"]}'
                self.fault('unknown image id', place, text)
                continue
            label = labels.get(annotation['category_id'])
            if label is None:
                text = f'no category has the id {annotation["category_id"]}'
                self.fault('unknown category', place, text)
            sample.instances.append(self.read_instance(annotation, label))
        return [sample for sample in samples.values() if sample]

    def read_categories(self) -> dict:
        """The label of each id; the classes are those of the folder's first json, and new ones."""
        classes, labels = self.folder.classes, {}
        used = {annotation['category_id'] for annotation in self.content['annotations']}
        for category in self.content['categories']:
            id_, name = category['id'], str(category['name'])
            if id_ in labels or name in self.names:
                others = [other for other in labels if classes[labels[other]] == name]
                is_idle = id_ not in labels and len(used & {id_, *others}) < 2
                text = f"'{name}' has an id or a name that another has"
                kind = 'idle category' if is_idle else 'double category'
                self.fault(kind, f'category {id_}', text)
            else:
                self.names.append(name)
            if name not in classes:
                classes.append(name)
            labels.setdefault(id_, classes.index(name))
        numbers = sorted(id_ for id_ in labels if isinstance(id_, int))
        gaps = [(a, b) for a, b in zip(numbers, numbers[1:]) if b > a + 1]
        for a, b in gaps:
            self.fault('gapped category ids', f'category {b}', f'follows {a}')
        return labels

    def read_images(self) -> dict[object, Sample | None]:
        """The samples by id.

        None stands for one whose file is outside, and for several files with one id, since nothing
        says which of them an annotation is of.
        """
        samples: dict[object, Sample | None] = {}
        names: dict[object, str] = {}
        for image in self.content['images']:
            id_, name = image['id'], image['file_name']
            place = f'image id {id_}'
            picture = join_inside(self.pictures, name, self.folder.root)
            if id_ in names:
                self.fault('double image id', place, f"'{name}' and '{names[id_]}' share it")
                samples[id_] = samples[id_] if name == names[id_] else None
                continue
            names[id_] = name
            if picture is None:
                self.fault('outside', place, f"'{str(name)[:60]}' is no file below the folder")
                samples[id_] = None
                continue
            sides = (image.get('width'), image.get('height'))
            size = sides if all(isinstance(side, int) for side in sides) else None
            samples[id_] = Sample(picture, f'{self.folder.name(self.path)}: {place}', size)
        return samples

    def read_instance(self, annotation: dict, label: int | None) -> Instance:
        shape = annotation.get('segmentation')
        where = f'{self.folder.name(self.path)}: annotation {annotation["id"]}'
        return Instance(
            label=label,
            where=where,
            box=annotation.get('bbox'),
            polygons=shape if isinstance(shape, list) and shape else None,
            rle=shape if isinstance(shape, dict) else None,
            crowd=bool(annotation.get('iscrowd')),
        )

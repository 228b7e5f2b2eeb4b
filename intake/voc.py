"""Pascal VOC: an xml file for each picture, in Annotations/ or beside the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.parsers import expat

from .folder import (
    DETECTION,
    WHOLE,
    Fault,
    Folder,
    Instance,
    Sample,
    find_split,
    join_inside,
    list_files,
    list_folders,
    list_pictures,
    read_lines,
    read_text,
)

NAME = 'Pascal VOC'
LOOKED_FOR = 'VOC xml in Annotations/ beside JPEGImages/ or images/, or beside the pictures'
PLACES = (('JPEGImages', 'Annotations'), ('images', 'Annotations'), ('images', 'annotations'))
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
MAX_DEPTH = 20  # of elements in elements
MAX_DIGITS = 9  # of a side of a picture


@dataclass
class Element:
    """An element of an xml file, the line that it starts in, and the parts of its text."""

    tag: str
    line: int
    parts: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)

    def find(self, tag: str) -> Element | None:
        return next((child for child in self.children if child.tag == tag), None)

    def get(self, tag: str) -> str:
        child = self.find(tag)
        return ''.join(child.parts).strip() if child else ''


def find(root: Path) -> str | None:
    """What of this layout lies in a folder."""
    found = [xml for _, _, xml in find_places(root) if list_files(xml, ['.xml'])]
    return ', '.join(dict.fromkeys(f'{path.relative_to(root)}/*.xml' for path in found)) or None


def find_places(root: Path) -> list[tuple[str, Path, Path]]:
    """Splits with their folders of pictures and of xml."""
    for pictures, xml in PLACES:
        if (root / xml).is_dir() and list_files(root / xml, ['.xml']):
            return [(WHOLE, root / pictures, root / xml)]
        splits = [
            (find_split(f.name), root / pictures / f.name, f) for f in list_folders(root / xml)
        ]
        if any(split and list_files(xml, ['.xml']) for split, _, xml in splits):
            return [place for place in splits if place[0]]
    folders = [folder for folder in list_folders(root) if find_split(folder.name)]
    beside = [(find_split(folder.name), folder, folder) for folder in folders]
    return beside or [(WHOLE, root, root)]


def read(root: Path) -> Folder:
    """All splits; the classes are the names in the files, in alphabetical order."""
    folder = Folder(root, NAME, DETECTION, [], {})
    named: list[tuple[Instance, str]] = []  # with the words for its class
    for split, pictures, xml in find_places(root):
        folder.add(split, read_split(folder, pictures, xml, named))
    folder.classes = sorted({name for _, name in named})
    for instance, name in named:
        instance.label = folder.classes.index(name)
    lists = root / 'ImageSets' / 'Main'
    if WHOLE in folder.splits and lists.is_dir():
        divide(folder, lists)
    return folder


def divide(folder: Folder, lists: Path) -> None:
    """The splits that text files of names give, with a sample of its own for each name."""
    every = {sample.picture.stem: sample for sample in folder.splits[WHOLE]}
    splits = {}
    named = find_lists(lists)
    for split, path in named.items():
        splits[split] = []
        try:
            lines = read_lines(path)
        except (OSError, ValueError) as error:
            folder.faults.append(Fault('malformed file', folder.name(path), f'no text: {error}'))
            continue
        for number, line in enumerate(lines, 1):
            if line and line not in every:
                where = f'{folder.name(path)}:{number}'
                text = f"no picture '{line}' with an xml file"
                folder.faults.append(Fault('missing picture', where, text))
            elif line:
                splits[split].append(replace(every[line]))
    if splits:
        folder.splits = splits
    if 'val' in splits and named.get('train', lists).stem == 'trainval':
        held = {sample.picture for sample in splits['val']}
        splits['train'] = [s for s in splits['train'] if s.picture not in held]


def find_lists(lists: Path) -> dict[str, Path]:
    """Text files of names by split; where there is no train, trainval is in its place."""
    paths = [path for path in list_files(lists, ['.txt']) if '_' not in path.stem]  # no class's
    named = {find_split(path.stem): path for path in paths if find_split(path.stem)}
    whole = [path for path in paths if path.stem == 'trainval']
    return {'train': whole[0]} | named if whole else named


def read_split(
    folder: Folder, pictures: Path, xml: Path, named: list[tuple[Instance, str]]
) -> list[Sample]:
    """Samples of the xml files; pictures that have none follow, without objects."""
    samples = []
    there = {path.stem: path for path in list_pictures(pictures)}
    for path in list_files(xml, ['.xml']):
        try:
            tree = parse(read_text(path))
        except (OSError, ValueError, expat.ExpatError) as error:
            folder.faults.append(Fault('malformed file', folder.name(path), f'no xml: {error}'))
            there.pop(path.stem, None)
            continue
        name = tree.get('filename') or path.stem
        picture = join_inside(pictures, name, folder.root)
        if picture is None:
            where = f'{folder.name(path)}:{tree.find("filename").line}'
            text = f"'{name}' is no file below the folder"
            folder.faults.append(Fault('outside', where, text))
            there.pop(path.stem, None)
            continue
        if not picture.is_file():
            picture = there.get(path.stem, picture)
        there.pop(picture.stem, None)
        samples.append(read_sample(folder, path, tree, picture, named))
    for picture in there.values():
        where = folder.name(picture)
        text = f"there is no '{folder.name(xml / picture.stem)}.xml'"
        folder.faults.append(Fault('unlabelled picture', where, text))
        samples.append(Sample(picture, where))
    return samples


def read_sample(
    folder: Folder, path: Path, tree: Element, picture: Path, named: list[tuple[Instance, str]]
) -> Sample:
    sides = [tree.find('size').get(key) if tree.find('size') else '' for key in ('width', 'height')]
    is_size = all(side.isdecimal() and len(side) <= MAX_DIGITS for side in sides)
    size = tuple(map(int, sides)) if is_size else None
    size = size if size and all(size) else None  # some tools write 0 for what they do not know
    sample = Sample(picture, folder.name(path), size)
    for element in tree.children:
        if element.tag != 'object':
            continue
        where = f'{folder.name(path)}:{element.line}'
        name = element.get('name')
        sample.instances.append(Instance(None, where, read_box(element)))
        if name:
            named.append((sample.instances[-1], name))
        else:
            folder.faults.append(Fault('unknown category', where, 'the object has no name'))
    return sample


def read_box(element: Element) -> object:
    """(x, y, width, height) of corners as they are written, or their words if those are no box."""
    corners = element.find('bndbox')
    words = [corners.get(key) if corners else '' for key in CORNERS]
    try:
        left, top, right, bottom = map(float, words)
    except ValueError:
        return words
    return [left, top, right - left, bottom - top]


def parse(text: str) -> Element:
    """The outermost element.

    Raises:
        ValueError: For a file that declares types or entities, or whose elements lie too deep.
        expat.ExpatError: When it is no xml.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    stack = [Element('', 0)]

    def start(tag: str, attributes: dict) -> None:
        if len(stack) > MAX_DEPTH:
            raise ValueError(f'elements lie more than {MAX_DEPTH} deep')
        element = Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        stack.pop()

    def add(text: str) -> None:
        stack[-1].parts.append(text)

    def refuse(*args: object) -> None:
        raise ValueError('it declares types or entities')

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = add, refuse
    parser.Parse(text, True)
    return stack[0].children[0]

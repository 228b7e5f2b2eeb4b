"""Sixty pictures of simple shapes on photographs, written in every layout that is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image
from skimage import data, draw

CLASSES = ('kite', 'square', 'wedge')  # in alphabetical order, as xml and folders give them
COLOURS = ((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25))  # background and classes
CORNERS = {  # x and y of unit shapes
    'kite': (0.5, 0, 1, 0.5, 0.5, 1, 0, 0.5),
    'square': (0, 0, 1, 0, 1, 1, 0, 1),
    'wedge': (0, 0, 1, 1, 0, 1),
}
SIZE = (96, 64)  # width, height
PHOTOGRAPHS = (data.astronaut, data.chelsea, data.coffee, data.rocket)


class Scene(NamedTuple):
    """A picture, and its objects as labels with polygons."""

    picture: np.ndarray
    objects: list[tuple[int, list[float]]]


def make_scenes(number: int = 60, objects: int = 2, seed: int = 0) -> list[Scene]:
    """Shapes of plain colours on cuts of photographs, side by side; the first is of class i % 3."""
    random = np.random.default_rng(seed)
    photographs = [photograph() for photograph in PHOTOGRAPHS]
    scenes = []
    for i in range(number):
        photograph = photographs[i % len(photographs)]
        top = random.integers(photograph.shape[0] - SIZE[1])
        left = random.integers(photograph.shape[1] - SIZE[0])
        picture = photograph[top : top + SIZE[1], left : left + SIZE[0]].copy()
        found = []
        for place in range(objects):
            label = (i + place) % len(CLASSES)
            side = int(random.integers(16, 40))
            x = place * SIZE[0] // objects + int(random.integers(0, SIZE[0] // objects - side))
            y = int(random.integers(0, SIZE[1] - side))
            unit = CORNERS[CLASSES[label]]
            polygon = [float((x, y)[j % 2] + side * value) for j, value in enumerate(unit)]
            rows, columns = draw.polygon(polygon[1::2], polygon[::2], picture.shape)
            picture[rows, columns] = random.integers(0, 256, 3)
            found.append((label, polygon))
        scenes.append(Scene(picture, found))
    return scenes


def get_splits(scenes: list[Scene]) -> dict[str, range]:
    """Four fifths are to train on."""
    border = 4 * len(scenes) // 5
    return {'train': range(border), 'val': range(border, len(scenes))}


def save(picture: np.ndarray, path: Path, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **settings)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def name(i: int) -> str:
    return f'{i:03}.png'


def get_box(polygon: list[float]) -> list[float]:
    left, top = min(polygon[::2]), min(polygon[1::2])
    return [left, top, max(polygon[::2]) - left, max(polygon[1::2]) - top]


def get_mask(scene: Scene) -> np.ndarray:
    """0 for the background, 1 + label for what is drawn."""
    mask = np.zeros(scene.picture.shape[:2], np.uint8)
    for label, polygon in scene.objects:
        mask[draw.polygon(polygon[1::2], polygon[::2], mask.shape)] = label + 1
    return mask


def get_coco(scenes: list[Scene], members: range, shaped: bool, places: str = '') -> dict:
    """The content of a json; ``places`` comes before the names of files."""
    images = [
        dict(id=i, file_name=places + name(i), width=SIZE[0], height=SIZE[1]) for i in members
    ]
    annotations = []
    for i in members:
        for label, polygon in scenes[i].objects:
            box = get_box(polygon)
            found = dict(id=100 * i + len(annotations) + 1, image_id=i, category_id=label + 1)
            found |= dict(bbox=box, area=box[2] * box[3], iscrowd=0)
            annotations.append(found | (dict(segmentation=[polygon]) if shaped else {}))
    categories = [dict(id=i, name=word) for i, word in enumerate(CLASSES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def make_coco(root: Path, scenes: list[Scene], shaped: bool = True) -> None:
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / 'images' / split / name(i))
        content = get_coco(scenes, members, shaped)
        write(root / 'annotations' / f'instances_{split}.json', json.dumps(content))


def make_roboflow(root: Path, scenes: list[Scene], shaped: bool = True) -> None:
    for split, folder in (('train', 'train'), ('val', 'valid')):
        for i in get_splits(scenes)[split]:
            save(scenes[i].picture, root / folder / name(i))
        content = get_coco(scenes, get_splits(scenes)[split], shaped)
        write(root / folder / '_annotations.coco.json', json.dumps(content))


def make_single_json(root: Path, scenes: list[Scene], shaped: bool = True) -> None:
    for i, scene in enumerate(scenes):
        save(scene.picture, root / 'images' / name(i))
    content = get_coco(scenes, range(len(scenes)), shaped)
    write(root / 'shapes.json', json.dumps(content))


def make_root_json(root: Path, scenes: list[Scene], shaped: bool = True) -> None:
    for i, scene in enumerate(scenes):
        save(scene.picture, root / name(i))
    content = get_coco(scenes, range(len(scenes)), shaped)
    write(root / 'annotations.json', json.dumps(content))


def get_yolo(scene: Scene, shaped: bool) -> str:
    lines = []
    for label, polygon in scene.objects:
        x, y, width, height = get_box(polygon)
        values = polygon if shaped else [x + width / 2, y + height / 2, width, height]
        shares = [value / SIZE[i % 2] for i, value in enumerate(values)]
        lines.append(' '.join(map(str, [label, *shares])))
    return '\n'.join(lines) + '\n'


def make_yolo(root: Path, scenes: list[Scene], shaped: bool = True) -> None:
    """``images/<split>`` and ``labels/<split>``, named by a yaml."""
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / 'images' / split / name(i))
            write(root / 'labels' / split / f'{i:03}.txt', get_yolo(scenes[i], shaped))
    content = dict(train='../images/train', nc=3, names=dict(enumerate(CLASSES)))
    write(root / 'data.yaml', yaml.safe_dump(content))


def make_yolo_inside(root: Path, scenes: list[Scene], shaped: bool = False) -> None:
    """``<split>/images`` and ``<split>/labels``, named by a text."""
    for split, folder in (('train', 'train'), ('val', 'valid')):
        for i in get_splits(scenes)[split]:
            save(scenes[i].picture, root / folder / 'images' / name(i))
            write(root / folder / 'labels' / f'{i:03}.txt', get_yolo(scenes[i], shaped))
    write(root / 'classes.txt', '\n'.join(CLASSES))


def get_xml(scene: Scene, i: int) -> str:
    lines = ['<annotation>', f'<filename>{name(i)}</filename>']
    lines.append(f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>')
    for label, polygon in scene.objects:
        x, y, width, height = get_box(polygon)
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + width, y + height))
        box = ''.join(f'<{tag}>{value}</{tag}>' for tag, value in corners)
        lines.append(
            f'<object><name>{escape(CLASSES[label])}</name><bndbox>{box}</bndbox></object>'
        )
    return '\n'.join([*lines, '</annotation>'])


def make_voc(root: Path, scenes: list[Scene]) -> None:
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / 'JPEGImages' / name(i))
            write(root / 'Annotations' / f'{i:03}.xml', get_xml(scenes[i], i))
        stems = '\n'.join(f'{i:03}' for i in members)
        write(root / 'ImageSets' / 'Main' / f'{split}.txt', stems)


def make_plain_xml(root: Path, scenes: list[Scene]) -> None:
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / split / name(i))
            write(root / split / f'{i:03}.xml', get_xml(scenes[i], i))


def make_masks(root: Path, scenes: list[Scene]) -> None:
    """Index PNGs with a palette, in folders of splits, named by a text."""
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / 'images' / split / name(i))
            mask = Image.fromarray(get_mask(scenes[i]))
            mask.putpalette(np.array(COLOURS, np.uint8).tobytes())
            path = root / 'masks' / split / name(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path)
    write(root / 'classes.txt', '\n'.join(['background', *CLASSES]))


def make_colours(root: Path, scenes: list[Scene]) -> None:
    """Masks of colours without splits, named by a text with colours."""
    for i, scene in enumerate(scenes):
        save(scene.picture, root / 'images' / name(i))
        save(np.array(COLOURS, np.uint8)[get_mask(scene)], root / 'labels' / f'{i:03}_mask.png')
    rows = zip(['background', *CLASSES], COLOURS)
    write(root / 'labels.txt', '\n'.join(f'{word} {r} {g} {b}' for word, (r, g, b) in rows))


def make_values(root: Path, scenes: list[Scene]) -> None:
    """Masks with values that nothing names."""
    for split, members in get_splits(scenes).items():
        for i in members:
            save(scenes[i].picture, root / split / 'images' / name(i))
            save(get_mask(scenes[i]) * 50, root / split / 'annotations' / name(i))


def make_classes(root: Path, scenes: list[Scene]) -> None:
    """A picture's class is that of its first object."""
    for split, members in get_splits(scenes).items():
        for i in members:
            place = root / split / CLASSES[scenes[i].objects[0][0]]
            save(scenes[i].picture, place / name(i))


def make_unsplit_classes(root: Path, scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        save(scene.picture, root / CLASSES[scene.objects[0][0]] / name(i))


class Maker(NamedTuple):
    """Writes a layout.

    Args:
        make: What does.
        layout: Its name.
        splits: Whether it has a validation split.
    """

    make: Callable[[Path, list[Scene]], None]
    layout: str
    splits: bool = True


MAKERS = {
    'coco': Maker(make_coco, 'COCO json'),
    'roboflow': Maker(make_roboflow, 'COCO json'),
    'single json': Maker(make_single_json, 'COCO json', splits=False),
    'json in the root': Maker(make_root_json, 'COCO json', splits=False),
    'yolo': Maker(make_yolo, 'YOLO'),
    'yolo inside splits': Maker(make_yolo_inside, 'YOLO'),
    'voc': Maker(make_voc, 'Pascal VOC'),
    'plain xml': Maker(make_plain_xml, 'Pascal VOC'),
    'masks': Maker(make_masks, 'masks'),
    'colours': Maker(make_colours, 'masks', splits=False),
    'values': Maker(make_values, 'masks'),
    'classes': Maker(make_classes, 'class folders'),
    'classes without splits': Maker(make_unsplit_classes, 'class folders', splits=False),
}

"""The kinds of faults: which of them stop a training, and what to do about each."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A row of :data:`KINDS`.

    Args:
        stops: Whether it is a fault, which stops a training; else a warning.
        title: What it is.
        remedy: What to do; ``--fix`` where a mended copy does it.
    """

    stops: bool
    title: str
    remedy: str


KINDS = {
    'malformed file': Kind(True, 'json, xml or yaml that cannot be read', 'mend the file'),
    'malformed line': Kind(
        True, 'lines that are no annotation', 'mend the line; --fix leaves it out'
    ),
    'outside': Kind(
        True, 'annotations that name a file outside the folder', '--fix leaves them out'
    ),
    'strange name': Kind(
        True, 'files whose names have control characters', 'rename them; --fix leaves them out'
    ),
    'missing picture': Kind(True, 'pictures that are not there', '--fix leaves them out'),
    'unreadable picture': Kind(True, 'files that are no picture', '--fix leaves them out'),
    'truncated picture': Kind(True, 'pictures that are cut short', '--fix leaves them out'),
    'turned picture': Kind(
        False,
        'pictures that their EXIF data turn',
        'tools that do not look there see them otherwise; --fix turns their pixels',
    ),
    'picture size': Kind(
        True, 'pictures of another size than is stated', '--fix states the true size'
    ),
    'unlabelled picture': Kind(
        False, 'pictures without an annotation file', 'they count as empty; remove them if not'
    ),
    'missing mask': Kind(True, 'pictures without a mask', '--fix leaves them out'),
    'missing partner': Kind(True, 'annotations without a picture', '--fix leaves them out'),
    'unreadable mask': Kind(True, 'masks that cannot be read', '--fix leaves them out'),
    'mask size': Kind(True, 'masks of another size than their picture', '--fix leaves them out'),
    'mask values': Kind(
        True, 'masks with values that are no class', 'name the classes; --fix ignores such pixels'
    ),
    'malformed box': Kind(True, 'boxes that are not four finite numbers', '--fix drops them'),
    'box outside': Kind(True, 'boxes outside their picture', '--fix drops them'),
    'box beyond': Kind(False, 'boxes that reach out of their picture', '--fix clips them'),
    'empty box': Kind(True, 'boxes without an area', '--fix drops them'),
    'thin box': Kind(False, 'boxes narrower than a pixel', 'they are left out; --fix drops them'),
    'degenerate polygon': Kind(
        True, 'polygons without three corners or an area', '--fix drops them'
    ),
    'mask run lengths': Kind(True, 'run lengths of another size or length', '--fix drops them'),
    'missing shape': Kind(True, 'objects without a shape among shapes', '--fix drops them'),
    'repeated object': Kind(False, 'objects that stand twice in a picture', '--fix keeps one'),
    'unknown category': Kind(True, 'objects of a class that is not listed', '--fix drops them'),
    'gapped category ids': Kind(False, 'category ids with gaps', '--fix counts them anew'),
    'double category': Kind(True, 'categories with one id or one name', '--fix keeps the first'),
    'idle category': Kind(
        False, 'categories of one name, of which one alone has annotations', 'remove the others'
    ),
    'double image id': Kind(True, 'image ids that appear twice', '--fix leaves their pictures out'),
    'double annotation id': Kind(True, 'annotation ids that appear twice', '--fix renumbers them'),
    'unknown image id': Kind(
        True, 'annotations of an image that is not listed', '--fix drops them'
    ),
    'unused class': Kind(False, 'classes that nothing is of', 'add samples or drop it'),
    'one-sided class': Kind(
        False, 'classes of validation that training never sees', 'add samples to the training'
    ),
    'empty split': Kind(True, 'splits without a picture', 'fill or remove them'),
    'two classes': Kind(
        True,
        'equal pictures in folders of two classes',
        'remove the wrong ones; --fix leaves all out',
    ),
    'duplicate': Kind(False, 'equal pictures in one split', '--fix keeps one'),
    'duplicate across': Kind(
        True, 'equal pictures in two splits', '--fix keeps the one that is not trained on'
    ),
    'near duplicate': Kind(False, 'pictures of one split that look alike', 'keep one of each'),
    'near duplicate across': Kind(
        False, 'pictures of two splits that look alike', 'move them to one side'
    ),
}

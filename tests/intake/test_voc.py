"""Pascal VOC's xml files."""

import shutil
import time

import pytest
from makers import (
    SIZE,
    write,
)

from mmdense.intake import voc
from mmdense.intake.examining import examine
from mmdense.intake.faults import stops
from mmdense.intake.layouts import read_folder


def test_objects_of_one_line_keep_their_classes(own, scenes):
    """As tools write xml that do not indent it."""
    root = own('voc')
    paths = sorted((root / 'Annotations').glob('*.xml'))[:4]
    for path in paths:
        path.write_text(path.read_text().replace('\n', ''))
    samples = {sample.picture.stem: sample for _, sample in examine(root).folder.samples()}
    for path in paths:
        wanted = [label for label, _ in scenes[int(path.stem)].objects]
        assert [i.label for i in samples[path.stem].instances] == wanted


def test_long_texts_of_xml_are_read_in_parts():
    """Each line and each reference ends one; joining them one by one took seconds."""
    parts, words = ['line\n', '&amp;', 'word'], ['line\n', '&', 'word']
    begin = time.perf_counter()
    found = voc.parse(f'<a><b>{"".join(parts) * 100_000}</b></a>').get('b')
    assert time.perf_counter() - begin < 2
    assert found == ''.join(words) * 100_000


@pytest.mark.parametrize(
    'lists, wanted',
    [
        (dict(trainval=range(10), test=range(10, 15)), dict(train=8, val=2, test=5)),
        (dict(trainval=range(15), val=range(12, 15)), dict(train=12, val=3)),
        (dict(trainval=range(15), train=range(9), val=range(9, 15)), dict(train=9, val=6)),
    ],
)
def test_trainval_stands_for_train_where_there_is_none(lists, wanted, own):
    root = own('voc')
    shutil.rmtree(root / 'ImageSets')
    for stem, members in lists.items():
        write(root / f'ImageSets/Main/{stem}.txt', '\n'.join(f'{i:03}' for i in members))
    examination = examine(root)
    found = {split: len(samples) for split, samples in examination.folder.splits.items()}
    assert found == wanted
    assert not stops(examination.faults)


def test_a_side_of_thousands_of_digits_is_not_known(own):
    root = own('voc')
    size = f'<size><width>{"9" * 5000}</width><height>64</height></size>'
    write(root / 'Annotations/000.xml', f'<a>{size}</a>')
    sizes = {sample.picture.stem: sample.size for _, sample in read_folder(root).samples()}
    assert sizes['000'] is None and sizes['001'] == SIZE

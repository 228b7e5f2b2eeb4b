"""COCO's json files."""

import json

import pytest
from edits import edit
from makers import (
    write,
)

from mmdense.intake.examining import examine


@pytest.mark.parametrize('form, is_native', [(lambda i: i + 1, True), (int, False), (str, False)])
def test_json_is_read_as_it_is_where_ids_count_from_one(form, is_native, own):
    """COCO's evaluation takes an object with the id 0 for none."""
    root = own('coco')
    path = root / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = form(number)
    path.write_text(json.dumps(content))
    folder = examine(root).folder
    assert ('train' in folder.native) == is_native


def test_other_json_files_are_passed_over(own):
    root = own('coco')
    write(root / 'annotations' / 'captions_train.json', json.dumps(dict(images=[], annotations=[])))
    write(root / 'settings.json', '{}')
    assert examine(root).faults == []


def test_categories_of_one_name_do_not_stop_where_one_is_idle(own):
    root = own('coco')
    edit(lambda c: c['categories'].insert(0, dict(id=0, name='kite')))(root)
    examination = examine(root)
    assert {fault.kind for fault in examination.faults} == {'idle category'}
    assert examination.folder.classes == ['kite', 'square', 'wedge']

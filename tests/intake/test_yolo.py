"""The names of YOLO's classes."""

import pytest
from makers import (
    write,
)

from mmdense.errors import UserError
from mmdense.intake.layouts import read_folder

NAMES = [  # of a yaml, and part of the line
    ('[&a [x, x], *a, kite]', 'no text and no small number'),
    ('[{a: 1}, b, c]', 'no text and no small number'),
    ('[~, b, c]', 'no text and no small number'),
    (f'[0x{"f" * 5000}, b, c]', 'no text and no small number'),
    (r'["\ud800", b, c]', 'no text in UTF-8'),
]


@pytest.mark.parametrize('names, message', NAMES)
def test_what_names_no_class(names, message, own):
    root = own('yolo')
    write(root / 'data.yaml', f'names: {names}\n')
    with pytest.raises(UserError, match=message):
        read_folder(root)


def test_plain_values_name_classes(own):
    root = own('yolo')
    write(root / 'data.yaml', 'names: [kite, 7, 1.5, true]\n')
    assert read_folder(root).classes == ['kite', '7', '1.5', 'True']


def test_a_number_of_thousands_of_digits_names_no_class(own):
    root = own('yolo')
    (root / 'data.yaml').unlink()
    write(root / 'labels/train/000.txt', f'{"9" * 5000} .5 .5 .1 .1\n')
    folder = read_folder(root)
    assert folder.classes == ['0', '1', '2']
    assert [fault.kind for fault in folder.faults] == ['malformed line']

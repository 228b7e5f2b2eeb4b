"""What is told of timings: one row per case."""

import csv

import cv2
import pytest
import torch

from mmdense.inference.benchmark import Case, Timing
from mmdense.inference.benchmark_report import draw, get_labels, get_rows, print_table, write_csv

SHAPES = {'a/x.py': (64, 96), 'b/x.py': (32, 32)}


@pytest.fixture
def rows():
    timings = {
        Case('a/x.py', 'inference', 'model', 'fp32', 'contiguous', 'eager'): Timing(
            2, [0.1, 0.2, 0.4], peak_bytes=3 * 2**20
        ),
        Case('b/x.py', 'inference', 'model', 'bf16', 'contiguous', 'eager'): Timing(
            2, [0.05, 0.1, 0.1]
        ),
    }
    return get_rows(timings, SHAPES, 3, torch.device('cpu'))


def test_rows(rows):
    first, second = rows
    assert (first['config'], first['shape'], first['precision']) == ('a/x.py', '64x96', 'fp32')
    assert first['images_per_second'] == 10 and first['ratio'] == 1
    assert (first['p50_ms'], first['p90_ms'], first['p99_ms']) == (200, 360, 396)
    assert first['peak_mib'] == 3 and second['peak_mib'] == ''
    assert second['ratio'] == 2  # of 2, 2, 4: round by round
    assert first['device'].startswith('cpu (') and first['rounds'] == 3


def test_names_are_short_where_they_can_be():
    case = Case('a/x.py', 'data', '', '', '', '')
    shapes = {'a/x.py': (64, 96), 'a/y.py': (64, 96)}
    (row,) = get_rows({case: Timing(4, [1.0], loaded=3)}, shapes, 1, torch.device('cpu'))
    assert row['config'] == 'x' and row['shape'] == '' and row['images_per_second'] == 3


def test_labels_say_what_differs(rows):
    labels, shared = get_labels(rows)
    assert labels == ['a/x.py fp32 64x96', 'b/x.py bf16 32x32']
    assert shared == 'inference, model, contiguous, eager, batch of 2'


def test_what_is_written(rows, tmp_path, capsys):
    write_csv(rows, tmp_path / 'new' / 'a.csv')
    with open(tmp_path / 'new' / 'a.csv') as file:
        read = list(csv.DictReader(file))
    assert read == [{key: str(value) for key, value in row.items()} for row in rows]
    draw(rows, tmp_path / 'new' / 'a.png')
    assert cv2.imread(str(tmp_path / 'new' / 'a.png')).std() > 10
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == ['a.csv', 'a.png']
    print_table(rows)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['b/x.py', 'bf16', '32x32', '20.0', '100.0', '100.0', '100.0', '2.0'] in lines

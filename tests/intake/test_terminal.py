"""What is printed of a folder."""

from pathlib import Path

from mmdense.intake.examining import Examination
from mmdense.intake.folder import Fault, Folder, Instance, Sample
from mmdense.intake.models import Input
from mmdense.intake.summary import Rows
from mmdense.intake.terminal import MOST, NAMED, as_table, show


def make(faults: list[Fault]) -> Examination:
    instances = [Instance(0, '', [0, 0, 2, 2])]
    samples = dict(train=[Sample(Path('a.png'), '', (64, 64), instances)])
    folder = Folder(Path('root'), 'COCO json', 'detection', ['[red]ape[/]'], samples)
    folder.notes.append('a note [1]')
    return Examination(folder, {}, faults)


def test_what_is_shown(capsys):
    """Names stay text; of each kind a few are named, of objects how they lie to the strides."""
    faults = [Fault('empty box', f'line {i}', '[bold]x[/]') for i in range(NAMED + 2)]
    faults.append(Fault('thin box', 'line 9', 'y'))
    show(make(faults), Input((4, 8)))
    out = capsys.readouterr().out
    lines = [' '.join(line.split()) for line in out.splitlines()]
    assert lines[:2] == ['COCO json, detection: 1 class, 1 train pictures', 'a note [1]']
    assert '[red]ape[/] 1' in lines and '[red]ape[/] 1 2 2 2' in lines
    assert '0 to 4 1 100.0%' in lines
    assert any(line.startswith('1 of 1 objects are smaller than 4 pixels') for line in lines)
    told = [line for line in lines if line.startswith(('fault: ', 'warning: '))]
    assert [line.split(': ')[:2] for line in told] == [
        ['fault', 'empty box'],
        ['warning', 'thin box'],
    ]
    assert told[0].endswith('--fix drops them')
    assert sum(line.endswith(': [bold]x[/]') for line in lines) == NAMED
    assert 'and 2 more' in lines and lines[-1] == f'{NAMED + 2} faults of 1 kinds, 1 warnings'


def test_without_a_model(capsys):
    show(make([]), None)
    out = capsys.readouterr().out
    assert 'sides of squares' not in out and out.endswith('no fault was found\n')


def test_long_tables_end():
    table = as_table(Rows('', ('a', 'b'), [[i, i / 7] for i in range(MOST + 3)]))
    assert table.row_count == MOST + 1
    first, second = (list(column.cells) for column in table.columns)
    assert first[-1] == 'and 3 more' and second[1] == '14.3%'

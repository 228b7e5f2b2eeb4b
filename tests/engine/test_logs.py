"""Logs of resumed runs are joined; what a run did twice counts once."""

from pathlib import Path

import numpy as np
import pytest
from log_rows import train_row, val_row, write, write_resumed

from mmdense.engine.logs import find_logs, join, load_runs, read_rows


@pytest.fixture
def work_dir(tmp_path) -> Path:
    return write_resumed(tmp_path / 'my_run')


def test_a_resumed_run_replaces_what_it_does_again(work_dir):
    (run,) = load_runs([str(work_dir)])
    assert run.name == 'my_run'
    assert [row['step'] for row in run.train] == [5, 10, 15, 20]
    assert ['grad' in row for row in run.train] == [False, False, True, True]
    assert [(row['step'], row['mIoU']) for row in run.val] == [(1, 10.0), (2, 25.0)]


@pytest.mark.parametrize('per_epoch', [10, None], ids=['by epoch', 'by iteration'])
def test_validations_that_are_yet_to_come_again_are_dropped(per_epoch):
    """Resumed after iteration 10, and not yet at the second validation."""
    steps = (1, 2, 3) if per_epoch else (10, 20, 30)
    rows = []
    for number, step in enumerate(steps):
        rows += [train_row(10 * number + i, per_epoch) for i in (5, 10)]
        rows.append(val_row(step, 1.0 + number))
    run = join('x', [*rows, train_row(15, per_epoch)])
    assert [row['step'] for row in run.train] == [5, 10, 15]
    assert [row['step'] for row in run.val] == [steps[0]]
    assert run.unit('mIoU') == ('epoch' if per_epoch else 'iteration')
    assert run.unit('loss') == 'iteration'


def test_a_validation_that_comes_again_counts_once():
    """Resumed after it had begun, and before the next iteration was logged."""
    run = join('x', [train_row(10), val_row(1, 1.0), val_row(2, 2.0), val_row(2, 2.5)])
    assert [(row['step'], row['mIoU']) for row in run.val] == [(1, 1.0), (2, 2.5)]


def test_a_run_that_starts_anew_replaces_all():
    run = join('x', [train_row(5), train_row(10), val_row(1, 1.0), train_row(5)])
    assert [row['step'] for row in run.train] == [5] and not run.val


def test_where_logs_are_found(work_dir):
    first = work_dir / '20260101_000000'
    assert [path.parent.parent.name for path in find_logs(work_dir)] == [
        '20260101_000000',
        '20260102_000000',
    ]
    for path in (first, first / 'vis_data', first / 'vis_data/scalars.json'):
        assert find_logs(path) == [first / 'vis_data/scalars.json']
        assert load_runs([str(path)])[0].name == 'my_run'


def test_a_line_that_is_being_written_is_left_out(work_dir):
    path = find_logs(work_dir)[0]
    path.write_text(path.read_text() + '{"loss": 0.0')
    assert len(read_rows(path)) == 9


def test_runs_of_one_name_are_told_apart(work_dir, tmp_path):
    other = write(tmp_path / 'other/my_run/t/vis_data/scalars.json', [train_row(1)])
    paths = [str(work_dir), str(other)]
    assert [run.name for run in load_runs(paths)] == paths


def test_curves():
    rows = [train_row(step) for step in (1, 2, 4)] + [val_row(1, 5.0)]
    rows.insert(1, train_row(1, loss_text='x') | dict(loss=float('nan'), step=1))
    run = join('x', rows)
    steps, values = run.curve('loss')
    assert steps.tolist() == [1, 2, 4] and np.isnan(values[0]) and values[2] == 0.25
    assert [array.tolist() for array in run.curve('mIoU')] == [[1.0], [5.0]]
    assert [array.tolist() for array in run.curve('nothing')] == [[], []]
    assert [array.tolist() for array in run.curve('loss_text')] == [[], []]

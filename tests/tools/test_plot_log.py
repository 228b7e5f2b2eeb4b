"""tools/plot_log.py: resumed runs are joined, every key is found, bad input is told in one line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdense.engine.logs import choose_keys, draw, find_logs, join, load_runs, read_rows


def train_row(step: int, per_epoch: int | None = 10, **scalars: float) -> dict:
    epoch = dict(epoch=(step - 1) // per_epoch + 1) if per_epoch else {}
    return dict(lr=0.1 / step, loss=1.0 / step, time=0.2, **scalars, **epoch, iter=step, step=step)


def val_row(step: int, value: float, key: str = 'mIoU') -> dict:
    return {key: value, 'data_time': 0.1, 'time': 0.2, 'step': step}


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


@pytest.fixture
def work_dir(tmp_path) -> Path:
    """Three epochs of ten iterations, the last two of them again after a resume."""
    folder = tmp_path / 'my_run'
    first = [train_row(5), train_row(10), val_row(1, 10.0), train_row(15), train_row(20)]
    first += [val_row(2, 20.0), train_row(25), train_row(30), val_row(3, 30.0)]
    again = [train_row(15, grad=1.0), train_row(20, grad=1.0), val_row(2, 25.0)]
    write(folder / '20260102_000000/vis_data/scalars.json', again)
    write(folder / '20260101_000000/vis_data/scalars.json', first)
    (folder / '20260103_000000').mkdir()  # a test run leaves no scalars
    return folder


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


def test_what_is_drawn():
    """A panel a key, a line a run, named axes, a legend; metrics have markers and no smoothing."""
    runs = [join('first', [train_row(s) for s in range(1, 31)] + [val_row(3, 0.5)])]
    runs.append(join('second', [train_row(s) for s in range(1, 6)]))
    assert choose_keys(runs, None) == ['loss', 'mIoU']
    figure = draw(runs, ['loss', 'lr', 'mIoU'], width=3)
    loss, lr, metric, empty = figure.axes
    assert [panel.get_ylabel() for panel in (loss, lr, metric)] == ['loss', 'lr', 'mIoU']
    assert [panel.get_xlabel() for panel in (loss, metric)] == ['iteration', 'epoch']
    assert not empty.axison
    assert len(loss.lines) == 4 and len(lr.lines) == 2  # pale and smooth; learning rates as is
    smooth = loss.lines[1].get_ydata()
    assert smooth[0] == pytest.approx((1 + 1 / 2) / 2)
    assert smooth[4] == pytest.approx((1 / 4 + 1 / 5 + 1 / 6) / 3)
    assert metric.lines[0].get_marker() == 'o' and lr.lines[0].get_marker() != 'o'
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['first', 'second']
    colours = [line.get_color() for line in legend.get_lines()]
    assert colours == [lr.lines[0].get_color(), lr.lines[1].get_color()]


class TestTool:
    def test_default_keys_and_file(self, work_dir, run_tool, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        code, out, err = run_tool('plot_log.py', work_dir)
        assert code == 0, err
        assert out == "loss, mIoU of my_run: 'curves.png'\n"
        assert cv2.imread('curves.png').std() > 10

    @pytest.mark.parametrize('suffix', ['.png', '.pdf', '.svg'])
    def test_several_runs(self, work_dir, run_tool, tmp_path, suffix):
        other = write(tmp_path / 'other/t/vis_data/scalars.json', [train_row(5)])
        path = tmp_path / 'new' / f'picture{suffix}'
        keys = ['--keys', 'loss', 'lr', '--smooth', 2]
        code, out, err = run_tool('plot_log.py', work_dir, other, *keys, '--out', path)
        assert code == 0, err
        assert out.startswith('loss, lr of my_run, other') and path.stat().st_size > 1000
        assert list(path.parent.iterdir()) == [path]

    @pytest.fixture
    def fails(self, run_tool, tmp_path):
        def check(*args: object, message: str) -> None:
            args = args if '--out' in args else (*args, '--out', tmp_path / 'out.png')
            code, out, err = run_tool('plot_log.py', *args)
            assert code == 1 and not out and err.count('\n') == 1 and message in err, err
            assert not (tmp_path / 'out.png').exists()

        return check

    def test_unknown_key(self, work_dir, fails):
        fails(work_dir, '--keys', 'loss', 'acc', message='no acc here; there are: lr, loss, time')

    def test_no_log(self, tmp_path, fails):
        fails(tmp_path / 'nothing', message="nothing' does not exist")
        fails(tmp_path, message='holds no */vis_data/scalars.json')

    @pytest.mark.parametrize('content', [b'\xff\xd8\n', b'a log\n', b'{"loss": 1}\n', b'5\n[1]\n'])
    def test_another_kind_of_file(self, tmp_path, fails, content):
        path = tmp_path / 'file.json'
        path.write_bytes(content)
        fails(path, message='is no scalars.json of a training')

    def test_nothing_logged_yet(self, tmp_path, fails):
        fails(write(tmp_path / 'scalars.json', []), message='has no rows yet')

    def test_nothing_to_draw_by_default(self, tmp_path, fails):
        row = dict(lr=1.0, iter=1, step=1)
        fails(write(tmp_path / 'scalars.json', [row]), message='no loss here; there are: lr')

    def test_out(self, work_dir, tmp_path, fails):
        fails(work_dir, '--out', tmp_path / 'curves', message='name a file that ends in .png')
        (tmp_path / 'file').write_text('mine')
        fails(work_dir, '--out', tmp_path / 'file' / 'c.png', message='cannot be written')
        (tmp_path / 'folder.png').mkdir()
        fails(work_dir, '--out', tmp_path / 'folder.png', message='cannot be written')

    def test_smooth(self, work_dir, run_tool):
        code, _, err = run_tool('plot_log.py', work_dir, '--smooth', 0)
        assert code == 2 and 'at least 1' in err

"""tools/plot_log.py: resumed runs are joined, every key is found, bad input is told in one line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdense.engine.logs import find_logs, join, load_runs, read_rows
from mmdense.reporting.curves import choose_keys, draw, smooth


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


@pytest.mark.parametrize(
    'keys, rows, columns', [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3), (16, 4, 4), (17, 5, 4)]
)
def test_panels_stand_in_a_square_of_four_columns_at_most(keys, rows, columns):
    """Each four inches wide and three high; those without a key are empty."""
    run = join('x', [train_row(s, **{f'k{i}': 1.0 for i in range(keys)}) for s in (3, 6)])
    figure = draw([run], [f'k{i}' for i in range(keys)], width=1)
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    assert [panel.axison for panel in figure.axes] == [i < keys for i in range(rows * columns)]
    for panel in figure.axes[:keys]:
        assert panel.get_xlim()[0] == 0 and len(panel.lines) == 1
    assert figure.get_size_inches().tolist() == [4 * columns + 1, pytest.approx(3 * rows + 0.7)]


def test_points_and_lines():
    """A metric and a single value are points; what is smoothed stays as a pale line."""
    run = join('x', [train_row(1), train_row(2, acc=3.0), val_row(1, 0.5), val_row(2, 0.6)])
    figure = draw([run], ['loss', 'acc', 'mIoU', 'lr'], width=2)
    loss, acc, metric, lr = figure.axes
    assert [len(panel.lines) for panel in figure.axes] == [2, 2, 1, 1]
    pale, smooth = loss.lines
    assert pale.get_alpha() < 0.5 and smooth.get_alpha() is None
    assert pale.get_ydata().tolist() == [1, 0.5] and pale.get_color() == smooth.get_color()
    markers = [panel.lines[-1].get_marker() for panel in (loss, acc, metric, lr)]
    assert markers == ['', 'o', 'o', '']
    assert len(draw([run], ['loss'], width=1).axes[0].lines) == 1


@pytest.mark.parametrize('width', [1, 2, 3, 4, 9])
def test_smoothing_is_the_mean_around(width):
    values = np.random.default_rng(0).normal(size=7)
    before, after = (width - 1) - width // 2, width // 2
    wanted = [values[max(i - before, 0) : i + after + 1].mean() for i in range(7)]
    np.testing.assert_allclose(smooth(values, width), wanted)


def test_units_of_several_runs():
    """One counts epochs, the other iterations; a run that has not the key counts nothing."""
    epochs = join('a', [train_row(10), val_row(1, 0.5)])
    iterations = join('b', [train_row(10, None), val_row(10, 0.5)])
    none = join('c', [train_row(10)])
    (panel,) = draw([epochs, iterations, none], ['mIoU'], 1).axes
    assert panel.get_xlabel() == 'epoch or iteration' and len(panel.lines) == 3
    (panel,) = draw([iterations, none], ['mIoU'], 1).axes
    assert panel.get_xlabel() == 'iteration'


def test_keys_by_default_leave_out_metrics_without_a_value():
    """COCO's -1, where there are no objects of a kind; the order is as logged, each once."""
    empty = {'mAP_s': -1, 'mAP': 0.5, 'step': 1, 'time': 1.0}
    runs = [join('x', [train_row(1, acc=2.0), empty]), join('y', [train_row(1), val_row(1, 0.1)])]
    assert choose_keys(runs, None) == ['loss', 'mAP', 'mIoU']
    assert choose_keys(runs, ['mAP_s', 'acc']) == ['mAP_s', 'acc']
    filled = join('z', [train_row(1), empty, train_row(2), dict(empty, mAP_s=0.2, step=2)])
    assert choose_keys([*runs, filled], None) == ['loss', 'mAP_s', 'mAP', 'mIoU']


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

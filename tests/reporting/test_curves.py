"""Curves of a training: which keys, how smooth, in which panels."""

import numpy as np
import pytest
from log_rows import train_row, val_row

from mmdense.engine.logs import join
from mmdense.reporting.curves import choose_keys, draw, smooth


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

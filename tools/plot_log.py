"""Draw the curves of training runs: losses, learning rates and validation metrics.

python tools/plot_log.py work_dirs/paca_digits
python tools/plot_log.py work_dirs/first work_dirs/second --keys loss lr mIoU --out both.png

A run is a work dir, or a scalars.json below it. What a resumed run did again counts once.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.files import replacing

LOGS = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
COUNTERS = ('step', 'iter', 'epoch')
TIMES = ('time', 'data_time')  # which validation logs beside its metrics
SUFFIXES = ('.png', '.pdf', '.svg')
MAX_COLUMNS = 4
NONE = -1  # COCO's value of a metric for which there are no objects


class Run(NamedTuple):
    """What a training logged."""

    name: str
    train: list[dict]  # one row of scalars per logged iteration
    val: list[dict]  # one row of metrics per validation

    @property
    def train_keys(self) -> list[str]:
        """What training logged, e.g. ``loss`` and ``lr``."""
        keys = dict.fromkeys(key for row in self.train for key in row)
        return [key for key in keys if key not in COUNTERS]

    @property
    def metrics(self) -> list[str]:
        """What validation alone logged."""
        keys = dict.fromkeys(key for row in self.val for key in row)
        return [key for key in keys if key not in (*COUNTERS, *TIMES, *self.train_keys)]

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a key, both empty when the run has none."""
        rows = self.val if key in self.metrics else self.train
        points = [(row['step'], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        steps, values = np.array(points, float).reshape(-1, 2).T
        return steps, values

    def unit(self, key: str) -> str:
        """What the steps of a key count."""
        epochs = [row['epoch'] for row in self.train if 'epoch' in row]
        counts_epochs = epochs and all(row['step'] <= max(epochs) for row in self.val)
        return 'epoch' if key in self.metrics and counts_epochs else 'iteration'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw the curves of training runs')
    parser.add_argument('logs', metavar='LOG', nargs='+', help='work dirs or scalars.json files')
    parser.add_argument(
        '--keys', nargs='+', help='what to draw (default: the loss and the validation metrics)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('curves.png'), help='the picture (default: curves.png)'
    )
    parser.add_argument(
        '--smooth',
        type=int,
        default=1,
        metavar='W',
        help='average each training value, but learning rates, over the W logged around it',
    )
    args = parser.parse_args()
    if args.smooth < 1:
        parser.error('--smooth must be at least 1')
    return args


def find_logs(path: Path) -> list[Path]:
    """The scalars.json of a run, one for each time that it was started, the oldest first.

    Raises:
        UserError: When there is none.
    """
    if path.is_file():
        return [path]
    for pattern in LOGS:
        if found := sorted(path.glob(pattern)):  # their folders are named by the time
            return found
    problem = 'holds no */vis_data/scalars.json' if path.exists() else 'does not exist'
    raise UserError(f"log '{path}' {problem}")


def read_rows(path: Path) -> list[dict]:
    """The rows of a scalars.json.

    Raises:
        UserError: When it is something else.
    """
    try:
        # What follows the last line break is still being written.
        rows = [json.loads(line) for line in path.read_text().split('\n')[:-1]]
        if not all('step' in row for row in rows):
            raise ValueError('a row without its step')
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is no scalars.json of a training") from error
    return rows


def join(name: str, rows: list[dict]) -> Run:
    """Rows as they were written -> a run in which every step is there once.

    A step that is not above the last one starts what a resumed run did again: the old rows from
    there on are dropped, and so are the validations that came after them.
    """
    train, val = [], []  # validations with the last training step before them
    for row in rows:
        step = row['step']
        last = train[-1]['step'] if train else 0
        if 'iter' in row:
            if step <= last:
                train = [old for old in train if old['step'] < step]
                val = [(at, old) for at, old in val if at < step]
            train.append(row)
        else:
            val = [(at, old) for at, old in val if old['step'] < step] + [(last, row)]
    return Run(name, train, [row for _, row in val])


def load_runs(paths: list[str]) -> list[Run]:
    """A run for each path, called by its work dir, or by the path where several are called so.

    Raises:
        UserError: When there is nothing to draw.
    """
    logs = [find_logs(Path(path)) for path in paths]
    folders = [log[0].resolve().parents for log in logs]
    names = [f[2].name if f[0].name == 'vis_data' else f[0].name for f in folders]
    names = names if len(set(names)) == len(names) else paths
    runs = []
    for name, path, files in zip(names, paths, logs):
        rows = [row for file in files for row in read_rows(file)]
        if not rows:
            raise UserError(f"'{path}' has no rows yet")
        runs.append(join(name, rows))
    return runs


def choose_keys(runs: list[Run], wanted: list[str] | None) -> list[str]:
    """The keys to draw: those that are wanted, or the loss and all validation metrics.

    Raises:
        UserError: When no run has one of them.
    """
    train = list(dict.fromkeys(key for run in runs for key in run.train_keys))
    metrics = list(dict.fromkeys(key for run in runs for key in run.metrics))
    known = [*train, *metrics]
    metrics = [key for key in metrics if any((run.curve(key)[1] != NONE).any() for run in runs)]
    keys = wanted or [key for key in known if key == 'loss' or key in metrics]
    unknown = [key for key in keys if key not in known]
    if unknown or not keys:
        raise UserError(f'no {", ".join(unknown) or "loss"} here; there are: {", ".join(known)}')
    return keys


def draw(runs: list[Run], keys: list[str], smooth: int) -> Figure:
    """A panel for each key, with a curve for each run."""
    columns = min(MAX_COLUMNS, math.ceil(math.sqrt(len(keys))))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(1 + 4 * columns, 0.7 + 3 * rows), layout='constrained', dpi=120)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    for panel, key in zip(panels, keys):
        for number, run in enumerate(runs):
            draw_curve(panel, run, key, smooth, f'C{number}')
        units = {run.unit(key) for run in runs if key in (*run.train_keys, *run.metrics)}
        panel.set_xlabel(' or '.join(sorted(units)))
        panel.set_ylabel(key)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        panel.grid(alpha=0.3)
    lines = [Line2D([], [], color=f'C{number}', label=run.name) for number, run in enumerate(runs)]
    figure.legend(handles=lines, loc='outside upper center', ncols=columns)
    return figure


def draw_curve(panel: Axes, run: Run, key: str, smooth: int, colour: str) -> None:
    """A curve; when it is smoothed, the values themselves stay as a pale line."""
    steps, values = run.curve(key)
    is_metric = key in run.metrics
    if smooth > 1 and not is_metric and not key.endswith('lr'):
        panel.plot(steps, values, color=colour, alpha=0.25)
        before, after = (smooth - 1) // 2, smooth // 2 + 1
        values = [values[max(i - before, 0) : i + after].mean() for i in range(len(values))]
    marker = 'o' if is_metric or len(steps) == 1 else ''
    panel.plot(steps, values, color=colour, marker=marker, markersize=4)


def main() -> None:
    args = parse_args()
    if args.out.suffix not in SUFFIXES:
        raise UserError(f"--out '{args.out}': name a file that ends in {', '.join(SUFFIXES)}")
    runs = load_runs(args.logs)
    keys = choose_keys(runs, args.keys)
    figure = draw(runs, keys, args.smooth)
    with replacing(args.out) as part:
        figure.savefig(part)
    print(f"{', '.join(keys)} of {', '.join(run.name for run in runs)}: '{args.out}'")


if __name__ == '__main__':
    launch.run(main)

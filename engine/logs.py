"""What trainings logged, in mmengine's scalars.json.

The toolboxes' own reader, a script of mmdet (tools/analysis_tools/analyze_logs.py), takes one file
of a training that was never resumed, and one validation an epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError

LOGS = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
COUNTERS = ('step', 'iter', 'epoch')
TIMES = ('time', 'data_time')  # which validation logs beside its metrics


class Run(NamedTuple):
    """What a training logged."""

    name: str
    train: list[dict]  # one row of scalars per logged iteration
    val: list[dict]  # one row of metrics per validation

    @property
    def train_keys(self) -> list[str]:
        """What training logged, e.g. ``loss`` and ``lr``."""
        return list(dict.fromkeys(k for row in self.train for k in row if k not in COUNTERS))

    @property
    def metrics(self) -> list[str]:
        """What validation alone logged."""
        known = {*COUNTERS, *TIMES, *self.train_keys}
        return list(dict.fromkeys(k for row in self.val for k in row if k not in known))

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a key, both empty when the run has none."""
        rows = self.val if key in self.metrics else self.train
        points = [(row['step'], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        steps, values = np.array(points, float).reshape(-1, 2).T
        return steps, values

    def unit(self, key: str) -> str:
        """What the steps of a key count."""
        last_epoch = max((row['epoch'] for row in self.train if 'epoch' in row), default=0)
        counts_epochs = all(row['step'] <= last_epoch for row in self.val)
        return 'epoch' if key in self.metrics and counts_epochs else 'iteration'


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

    What comes after a training step, validations too, is dropped when that step or an earlier one
    comes again: a resumed run does it once more.
    """
    kept: list[tuple[int, dict]] = []  # with the training step that each was logged at
    for row in rows:
        if 'iter' in row:
            at = row['step']
            while kept and kept[-1][0] >= at:
                kept.pop()
        else:
            at = kept[-1][0] if kept else 0
            while kept and 'iter' not in kept[-1][1] and kept[-1][1]['step'] >= row['step']:
                kept.pop()
        kept.append((at, row))
    rows = [row for _, row in kept]
    return Run(name, [r for r in rows if 'iter' in r], [r for r in rows if 'iter' not in r])


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

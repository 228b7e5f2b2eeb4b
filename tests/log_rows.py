"""Rows of mmengine's scalars.json."""

import json
from pathlib import Path


def train_row(step: int, per_epoch: int | None = 10, **scalars: float) -> dict:
    epoch = dict(epoch=(step - 1) // per_epoch + 1) if per_epoch else {}
    return dict(lr=0.1 / step, loss=1.0 / step, time=0.2, **scalars, **epoch, iter=step, step=step)


def val_row(step: int, value: float, key: str = 'mIoU') -> dict:
    return {key: value, 'data_time': 0.1, 'time': 0.2, 'step': step}


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def write_resumed(folder: Path) -> Path:
    """Three epochs of ten iterations, the last two of them again after a resume."""
    first = [train_row(5), train_row(10), val_row(1, 10.0), train_row(15), train_row(20)]
    first += [val_row(2, 20.0), train_row(25), train_row(30), val_row(3, 30.0)]
    again = [train_row(15, grad=1.0), train_row(20, grad=1.0), val_row(2, 25.0)]
    write(folder / '20260102_000000/vis_data/scalars.json', again)
    write(folder / '20260101_000000/vis_data/scalars.json', first)
    (folder / '20260103_000000').mkdir()  # a test run leaves no scalars
    return folder

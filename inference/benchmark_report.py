"""Benchmarks for readers: a row for every case, as a table, a file and bars."""

from __future__ import annotations

import csv
import platform
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ..files import replacing
from .benchmark import Case, Timing

PERCENTILES = (50, 90, 99)
SETTINGS = (
    'config',
    'mode',
    'part',
    'precision',
    'memory_format',
    'execution',
    'shape',
    'batch_size',
)


def get_rows(
    timings: dict[Case, Timing], shapes: dict[str, tuple], rounds: int, device: torch.device
) -> list[dict[str, object]]:
    """A row per case, for the file; times in milliseconds, memory in 2^20 bytes."""
    first = next(iter(timings.values()))
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    stems = {path: Path(path).stem for path in shapes}
    names = stems if len(set(stems.values())) == len(stems) else {path: path for path in shapes}
    rows = []
    for case, timing in timings.items():
        row = dict(vars(case), config=names[case.config])
        row['shape'] = '' if case.mode == 'data' else '{}x{}'.format(*shapes[case.config])
        row['batch_size'] = timing.batch_size
        row['images_per_second'] = round(timing.images_per_second, 3)
        for percent in PERCENTILES:
            row[f'p{percent}_ms'] = round(1000 * timing.percentile(percent), 3)
        row['peak_mib'] = '' if timing.peak_bytes is None else round(timing.peak_bytes / 2**20, 1)
        row['ratio'] = round(timing.speed_relative_to(first), 3)
        row.update(rounds=rounds, device=f'{device.type} ({name})', torch=torch.__version__)
        rows.append(row)
    return rows


def _show(key: str, value: object) -> str:
    return f'batch of {value}' if key == 'batch_size' else str(value)


def get_labels(rows: list[dict[str, object]]) -> tuple[list[str], str]:
    """What distinguishes each row, and what all of them have in common."""
    common = [key for key in SETTINGS if len({row[key] for row in rows}) == 1]
    labels = [
        ' '.join(_show(key, row[key]) for key in SETTINGS if key not in common and row[key])
        for row in rows
    ]
    shared = ', '.join(_show(key, rows[0][key]) for key in common if rows[0][key])
    return labels, shared


def print_table(rows: list[dict[str, object]]) -> None:
    columns = ('images_per_second', *(f'p{percent}_ms' for percent in PERCENTILES), 'peak_mib')
    labels, shared = get_labels(rows)
    table = Table('', box=None)
    for column in (*columns, 'ratio'):
        table.add_column(column, justify='right')
    for label, row in zip(labels, rows):
        table.add_row(label, *(str(row[column]) for column in (*columns, 'ratio')))
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(table)
    threads = f', {torch.get_num_threads()} threads' if rows[0]['device'].startswith('cpu') else ''
    console.print(f'{shared}; {rows[0]["device"]}{threads}, torch {rows[0]["torch"]}')
    console.print(
        f'ratio: speed relative to the first row, median over {rows[0]["rounds"]} rounds; '
        'peak_mib: tensors beside weights and input'
    )


def write_csv(rows: list[dict[str, object]], path: str | Path) -> None:
    with replacing(path) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, object]], path: str | Path) -> None:
    """Bars of images per second, with the ratios."""
    figure = Figure(figsize=(9, 0.8 + 0.4 * len(rows)), layout='constrained', dpi=120)
    axis = figure.subplots()
    labels, shared = get_labels(rows)
    bars = axis.barh(range(len(rows)), [row['images_per_second'] for row in rows])
    axis.set_yticks(range(len(rows)), labels)
    axis.bar_label(bars, [f'{row["ratio"]:.2f}x' for row in rows], padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel('images per second')
    axis.set_title(f'{shared}; {rows[0]["device"]}', fontsize=9)
    with replacing(path) as part:
        figure.savefig(part)

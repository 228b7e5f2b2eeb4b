"""Speed and memory of one or several models, side by side.

python tools/benchmark.py configs/paca/paca_t_in1k.py configs/fcvit/fcvit_b12_in1k.py
python tools/benchmark.py configs/paca/mask_rcnn_paca_s_1x.py --part model --mode inference train
python tools/benchmark.py configs/fcvit/fcvit_b12_in1k.py --precision fp32 bf16 \\
    --execution eager compiled --memory-format contiguous channels_last --csv b12.csv --plot b12.png
python tools/benchmark.py configs/digits/paca_digits.py --mode data

Weights and images are random; only `--mode data` needs the data set. Every combination of what is
asked for is a row, and the last column compares it with the first.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import platform
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import pick_device
from mmdense.engine.checks import check_data
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import find_toolbox
from mmdense.errors import UserError, last_line
from mmdense.files import replacing
from mmdense.inference.benchmark import DTYPES, Case, Timing, measure, measure_loading, prepare

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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure speed and memory')
    parser.add_argument('configs', nargs='+', help='config file paths')
    parser.add_argument(
        '--mode',
        nargs='+',
        choices=('inference', 'train', 'data'),
        default=['inference'],
        help='train: forward and backward; data: loading of training batches',
    )
    parser.add_argument(
        '--part',
        nargs='+',
        choices=('backbone', 'model'),
        default=['backbone'],
        help='model: the whole, from raw image to boxes, masks, maps or scores, or to the loss',
    )
    parser.add_argument('--precision', nargs='+', choices=tuple(DTYPES), default=['fp32'])
    parser.add_argument(
        '--memory-format',
        nargs='+',
        choices=('contiguous', 'channels_last'),
        default=['contiguous'],
    )
    parser.add_argument('--execution', nargs='+', choices=('eager', 'compiled'), default=['eager'])
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='SIDE',
        help='height and width, or one number for a square; by default 224 for classifiers, '
        '800 1280 for detectors, 512 for segmentors',
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per pass (default: 1)')
    parser.add_argument('--warmup', type=int, default=3, help='passes before (default: 3)')
    parser.add_argument('--rounds', type=int, default=20, help='passes timed (default: 20)')
    launch.add_device(parser)
    parser.add_argument('--csv', help='write the table to this file')
    parser.add_argument('--plot', help='draw the rows as bars: a .png, .svg or .pdf file')
    add_cfg_options(parser)
    args = parser.parse_args()
    for name in ('batch_size', 'warmup', 'rounds'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 32):
        parser.error('--shape takes one or two sides of at least 32')
    return args


def load_configs(args: argparse.Namespace) -> dict[str, tuple[Config, tuple[int, int]]]:
    """Every config with its image size, by its path."""
    configs = {}
    for path in args.configs:
        cfg = read_config(path, args.cfg_options)
        shape = args.shape or find_toolbox(cfg).shape
        if 'data' in args.mode:
            check_data(cfg, ('train_dataloader',))
        configs[path] = (cfg, (shape[0], shape[-1]))
    return configs


def get_cases(args: argparse.Namespace) -> list[Case]:
    """Every combination, those of a config together."""
    settings = (args.part, args.precision, args.memory_format, args.execution)
    return [
        Case(config, mode, *setting)
        for config in dict.fromkeys(args.configs)
        for mode in args.mode
        for setting in ([()] if mode == 'data' else itertools.product(*settings))
    ]


def run(args: argparse.Namespace, configs: dict, device: torch.device) -> dict[Case, Timing]:
    """Measure all cases of :func:`load_configs`: models in turn, then data sets one by one."""
    cases = get_cases(args)
    models = [case for case in cases if case.mode != 'data']
    timings = {}
    steps = [
        prepare(case, *configs[case.config], args.batch_size, device)
        for case in tqdm(models, 'models', disable=None)
    ]
    if steps:
        passes = measure(steps, args.batch_size, device, args.warmup, args.rounds)
        total = len(steps) * (args.warmup + 1 + args.rounds)
        timings = dict(zip(models, follow(passes, total, 'passes')))
    for case in cases:
        if case.mode == 'data':
            batches = measure_loading(configs[case.config][0], args.warmup, args.rounds)
            (timings[case],) = follow(batches, args.warmup + args.rounds, 'batches')
    return {case: timings[case] for case in cases}


def follow(measuring: Iterator[list[Timing]], total: int, unit: str) -> list[Timing]:
    """The last value, behind a progress bar."""
    return deque(tqdm(measuring, unit, total, disable=None), maxlen=1).pop()


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


def show(key: str, value: object) -> str:
    return f'batch of {value}' if key == 'batch_size' else str(value)


def get_labels(rows: list[dict[str, object]]) -> tuple[list[str], str]:
    """What distinguishes each row, and what all of them have in common."""
    common = [key for key in SETTINGS if len({row[key] for row in rows}) == 1]
    labels = [
        ' '.join(show(key, row[key]) for key in SETTINGS if key not in common and row[key])
        for row in rows
    ]
    shared = ', '.join(show(key, rows[0][key]) for key in common if rows[0][key])
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


def write_csv(rows: list[dict[str, object]], path: str) -> None:
    with replacing(path) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, object]], path: str) -> None:
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


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    if args.plot and Path(args.plot).suffix not in ('.png', '.svg', '.pdf'):
        raise UserError(f"--plot '{args.plot}': name a .png, .svg or .pdf file")
    device = pick_device(args.device)
    configs = load_configs(args)
    shapes = {path: shape for path, (_, shape) in configs.items()}
    try:
        timings = run(args, configs, device)
    except RuntimeError as error:
        raise UserError(f'these configs cannot be run so: {last_line(error)}') from error
    rows = get_rows(timings, shapes, args.rounds, device)
    print_table(rows)
    if args.csv:
        write_csv(rows, args.csv)
    if args.plot:
        draw(rows, args.plot)


if __name__ == '__main__':
    launch.run(main)

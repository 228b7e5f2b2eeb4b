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
import itertools
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.amp import DTYPES, warn_of_emulation
from mmdense.engine.building import pick_device
from mmdense.engine.checks import check_data
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import check_model_config, describe_shapes, find_toolbox
from mmdense.errors import UserError, last_line
from mmdense.inference.benchmark import Case, measure_all
from mmdense.inference.benchmark_report import draw, get_rows, print_table, write_csv


def make_parser() -> argparse.ArgumentParser:
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
        help=f'height and width, or one number for a square (default: {describe_shapes()})',
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per pass (default: 1)')
    parser.add_argument('--warmup', type=int, default=3, help='passes before (default: 3)')
    parser.add_argument('--rounds', type=int, default=20, help='passes timed (default: 20)')
    launch.add_device(parser)
    parser.add_argument('--csv', help='write the table to this file')
    parser.add_argument('--plot', help='draw the rows as bars: a .png, .svg or .pdf file')
    add_cfg_options(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
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
        check_model_config(cfg)
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


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    if args.plot and Path(args.plot).suffix not in ('.png', '.svg', '.pdf'):
        raise UserError(f"--plot '{args.plot}': name a .png, .svg or .pdf file")
    device = pick_device(args.device)
    if set(args.precision) != {'fp32'}:
        warn_of_emulation(device.type)
    configs = load_configs(args)
    passes = (args.batch_size, device, args.warmup, args.rounds)
    try:
        timings = measure_all(get_cases(args), configs, *passes)
    except (RuntimeError, ValueError) as error:
        raise UserError(f'these configs cannot be run so: {last_line(error)}') from error
    shapes = {path: shape for path, (_, shape) in configs.items()}
    rows = get_rows(timings, shapes, args.rounds, device)
    print_table(rows)
    if args.csv:
        write_csv(rows, args.csv)
    if args.plot:
        draw(rows, args.plot)


if __name__ == '__main__':
    launch.run(main)

"""Count a config's parameters, multiply-accumulates (MACs) and activations.

python tools/get_flops.py configs/paca/mask_rcnn_paca_s_1x.py
python tools/get_flops.py configs/fcvit/fcvit_b12_in1k.py --shape 384 --by-module
python tools/get_flops.py configs/paca/upernet_paca_s_160k.py --json

Needs no weights and no data. A MAC is one multiplication and one addition: what papers call a FLOP.
"""

from __future__ import annotations

import argparse
import json

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import NUM_MASKS, NUM_PROPOSALS, find_toolbox
from mmdense.errors import UserError, last_line
from mmdense.inference.flops import Complexity, measure

COUNTER = 'torch.utils.flop_counter (convolutions, linear layers, matrix products)'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count parameters, MACs and activations')
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='SIDE',
        help='height and width of the image, or one number for a square; by default as '
        'published: 224 for classifiers, 800 1280 for detectors, 512 for segmentors',
    )
    parser.add_argument('--by-module', action='store_true', help='a row for every module')
    parser.add_argument('--json', action='store_true', help='print one JSON object and no table')
    parser.add_argument(
        '--convention',
        choices=('macs', 'original'),
        default='macs',
        help="original: add the count by the convention of the backbone's authors",
    )
    add_cfg_options(parser)
    return parser.parse_args()


def load(args: argparse.Namespace) -> tuple[Config, tuple[int, int]]:
    """The config with its overrides, and the image size.

    Raises:
        UserError: When it is no config of a model, or the size is none.
    """
    cfg = read_config(args.config, args.cfg_options)
    shape = args.shape or find_toolbox(cfg).shape
    if len(shape) > 2 or min(shape) < 32:
        raise UserError(
            f'--shape {" ".join(map(str, shape))}: give one or two sides of at least 32'
        )
    return cfg, (shape[0], shape[-1])


def as_json(found: Complexity, args: argparse.Namespace) -> str:
    """One object: ``params``, ``macs``, ``activations``, ``shape``, modules, the counter."""
    modules = found.modules if args.by_module else found.parts
    content = dict(
        config=args.config,
        params=found.params,
        macs=found.macs,
        activations=found.activations,
        shape=found.shape,
        modules={name: count._asdict() for name, count in modules.items()},
        counter=COUNTER,
        torch=torch.__version__,
    )
    if args.convention == 'original':
        content['original'] = found.original._asdict()
    return json.dumps(content)


def print_table(found: Complexity, args: argparse.Namespace, detector: bool) -> None:
    """The counts of every part, or module, and how they were counted."""
    table = Table('', 'parameters', 'MACs', box=None)
    modules = found.modules if args.by_module else found.parts
    for name, count in modules.items():
        table.add_row(name, f'{count.params / 1e6:.3f} M', f'{count.macs / 1e9:.3f} G')
    table.add_row('all', f'{found.params / 1e6:.3f} M', f'{found.macs / 1e9:.3f} G')
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    height, width = found.shape
    regions = f', {NUM_PROPOSALS} regions and {NUM_MASKS} masks' if detector else ''
    console.print(f'activations: {found.activations / 1e6:.1f} M')
    console.print(f'one image of {height} x {width}{regions}; {COUNTER}; torch {torch.__version__}')
    if args.convention == 'original':
        params, flops = found.original
        console.print(f"as the backbone's authors count: {params:.2f} M, {flops:.2f} G")


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')  # it writes to where the object is printed
    cfg, shape = load(args)
    try:
        found = measure(cfg, shape)
    except RuntimeError as error:
        raise UserError(f'the model cannot be counted: {last_line(error)}') from error
    if args.json:
        print(as_json(found, args))
    else:
        print_table(found, args, detector=cfg.default_scope == 'mmdet')


if __name__ == '__main__':
    launch.run(main)

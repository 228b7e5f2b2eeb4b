"""Count a config's parameters, multiply-accumulates (MACs) and activations.

python tools/get_flops.py
python tools/get_flops.py configs/paca/mask_rcnn_paca_s_1x.py
python tools/get_flops.py configs/fcvit/fcvit_b12_in1k.py --shape 384 --by-module
python tools/get_flops.py configs/paca/upernet_paca_s_160k.py --json

Without a config it prints all of this package. Needs no weights and no data. A MAC is one
multiplication and one addition: what papers call a FLOP.
"""

from __future__ import annotations

import argparse

from mmengine.config import Config
from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import DETECTOR, check_model_config, describe_shapes, find_toolbox
from mmdense.errors import UserError, last_line
from mmdense.inference.flops import measure
from mmdense.inference.flops_report import as_json, print_configs, print_table


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Count parameters, MACs and activations')
    parser.add_argument('config', nargs='?', help='config file path; by default all of mmdense')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='SIDE',
        help=f'height and width, or one number for a square (default: {describe_shapes()})',
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
    return parser


def load(args: argparse.Namespace) -> tuple[Config, tuple[int, int]]:
    """The config with its overrides, and the image size.

    Raises:
        UserError: When it is no config of a model, or the size is none.
    """
    cfg = read_config(args.config, args.cfg_options)
    check_model_config(cfg)
    shape = args.shape or find_toolbox(cfg).shape
    if len(shape) > 2 or min(shape) < 32:
        raise UserError(
            f'--shape {" ".join(map(str, shape))}: give one or two sides of at least 32'
        )
    return cfg, (shape[0], shape[-1])


def main() -> None:
    args = make_parser().parse_args()
    if args.config is None:
        print_configs(args.json)
        return
    MMLogger.get_current_instance().setLevel('ERROR')  # it writes to where the object is printed
    cfg, shape = load(args)
    try:
        found = measure(cfg, shape)
    except RuntimeError as error:
        raise UserError(f'the model cannot be counted: {last_line(error)}') from error
    original = args.convention == 'original'
    if args.json:
        print(as_json(found, args.config, args.by_module, original))
    else:
        print_table(found, find_toolbox(cfg).task == DETECTOR, args.by_module, original)


if __name__ == '__main__':
    launch.run(main)

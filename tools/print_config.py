"""Print a config as the tools see it: with all that it inherits, and with overrides.

python tools/print_config.py configs/paca/mask_rcnn_paca_s_1x.py
python tools/print_config.py configs/paca/mask_rcnn_paca_s_1x.py --out whole.py
python tools/print_config.py configs/paca/paca_t_in1k.py --diff configs/paca/paca_s_in1k.py
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.errors import UserError, last_line
from mmdense.files import replacing


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Print a config with all that it inherits')
    parser.add_argument('config', help='config file path')
    add_cfg_options(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument('--out', type=Path, help='write it to this .py file instead')
    target.add_argument(
        '--diff', metavar='OTHER_CONFIG', help='print what is different in another config'
    )
    return parser


def write(cfg: Config, path: Path) -> None:
    """Write a file that loads to the same config and inherits nothing.

    Raises:
        UserError: When it cannot be written, or holds a value that Python has no literal for.
    """
    if path.suffix != '.py':
        raise UserError(f"--out '{path}': name a .py file")
    text = cfg.pretty_text
    try:
        same = Config.fromstring(text, '.py').to_dict() == cfg.to_dict()
    except Exception as error:
        raise UserError(f'this config has no form as a file: {last_line(error)}') from error
    if not same:
        raise UserError('this config has no form as a file: it would load to another config')
    with replacing(path) as part:
        part.write_text(text)


def main() -> None:
    args = make_parser().parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.diff:
        if not sys.stdout.isatty():  # or rich would wrap long lines
            os.environ.setdefault('COLUMNS', '1000')
        print(Config.diff(cfg, read_config(args.diff)).strip() or 'no difference')
    elif args.out:
        write(cfg, args.out)
        print(f"written to '{args.out}'")
    else:
        print(cfg.pretty_text)


if __name__ == '__main__':
    launch.run(main)

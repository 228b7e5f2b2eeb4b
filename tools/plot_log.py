"""Draw the curves of training runs: losses, learning rates and validation metrics.

python tools/plot_log.py work_dirs/paca_digits
python tools/plot_log.py work_dirs/first work_dirs/second --keys loss lr mIoU --out both.png

A run is a work dir, or a scalars.json below it. What a resumed run did again counts once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.logs import load_runs
from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.reporting.curves import choose_keys, draw

SUFFIXES = ('.png', '.pdf', '.svg')


def make_parser() -> argparse.ArgumentParser:
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
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if args.smooth < 1:
        parser.error('--smooth must be at least 1')
    return args


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

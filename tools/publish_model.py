"""Make a small file to hand out of a training checkpoint: the weights and the names of classes.

python tools/publish_model.py work_dirs/paca_digits/epoch_8.pth checkpoints/paca_digits.pth
python tools/publish_model.py work_dirs/paca_digits/epoch_8.pth checkpoints/paca_digits.safetensors

Leaves out the optimizer, schedules and logs. The name of the file that is written ends in the first
8 hex digits of its SHA-256, as OpenMMLab's do: checkpoints/paca_digits-1a2b3c4d.pth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.serialization.checkpoint import find_file, load_file, save_weights
from mmdense.serialization.conversion import pick_weights
from mmdense.serialization.loading import check_numbers

SUFFIXES = ('.pth', '.safetensors')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Publish the weights of a training checkpoint')
    parser.add_argument('src', metavar='IN', help='checkpoint file')
    parser.add_argument(
        'dst', metavar='OUT', type=Path, help=f'the file to write ({", ".join(SUFFIXES)})'
    )
    return parser


def megabytes(path: Path) -> str:
    return f'{path.stat().st_size / 1e6:.1f} MB'


def main() -> None:
    args = make_parser().parse_args()
    if args.dst.suffix not in SUFFIXES:
        raise UserError(f"'{args.dst}': name a file that ends in {' or '.join(SUFFIXES)}")
    checkpoint = load_file(args.src)
    try:  # of a run with averaged weights those, which validation measured
        state = pick_weights(checkpoint, ema='ema_state_dict' in checkpoint)
    except UserError as error:
        raise UserError(f"'{args.src}': {error}") from error
    check_numbers(state, args.src)
    before = megabytes(Path(find_file(args.src)))
    path = save_weights(state, checkpoint.get('meta'), args.dst, add_hash=True)
    print(f"{len(state)} tensors, {before} -> {megabytes(path)}, written to '{path}'")


if __name__ == '__main__':
    launch.run(main)

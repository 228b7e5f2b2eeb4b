r"""Convert a published checkpoint to this project's names.

python tools/convert_checkpoint.py IMNET_224_pacavit_small_p2cconv_100_0.pth \
    checkpoints/paca_s_in1k.pth

Reads what the authors of PaCa-ViT, GroupMixFormer, FCViT and MSF published: classifiers, and
detectors and segmentors with these backbones, also by name (``mmdense://paca_s_in1k``). Finds out
which variant a file holds, or prints the config of a network that was not published; where no
family has such a network, says which variant comes nearest and what differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.serialization.checkpoint import load_file, save_weights
from mmdense.serialization.conversion import (
    Conversion,
    convert,
    has_averaged_weights,
    pick_weights,
)
from mmdense.serialization.loading import check_numbers


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Convert a published checkpoint to mmdense's names"
    )
    parser.add_argument(
        'src',
        metavar='IN',
        help='the published file (.pth, .pt, .safetensors), its address or its name',
    )
    parser.add_argument('dst', metavar='OUT', help='the file to write')
    parser.add_argument(
        '--ema', action='store_true', help='take the averaged weights of a file that has both'
    )
    return parser


def describe(conversion: Conversion) -> str:
    """What was found, for the user: lines of text."""
    backbone = dict(conversion.backbone)
    name = backbone.pop('type').removeprefix('mmdense.')
    shown = {k: v for k, v in backbone.items() if k not in ('out_indices', 'drop_path_rate')}
    lines = [f'{name}({", ".join(f"{k}={v!r}" for k, v in shown.items())})']
    state = conversion.state_dict
    if 'head.fc.weight' in state:
        lines.append(f'classifier of {len(state["head.fc.weight"])} classes')
    others = {key.split('.')[0] for key in state} - {'backbone', 'head'}
    if others:
        lines.append(f'with {", ".join(sorted(others))}')
    if conversion.reshaped:
        lines.append(f'where the config has another shape: {", ".join(conversion.reshaped)}')
    if conversion.config:
        lines.append(f'config of the backbone: {conversion.config}')
    else:
        lines += ['of no published variant; in a config:', write_config(conversion.backbone)]
        untold = conversion.family.untold
        if untold:
            lines.append(f'not to be seen in the tensors, so look them up: {", ".join(untold)}')
    return '\n'.join(lines)


def write_config(backbone: dict) -> str:
    """The lines of a config that builds a backbone."""
    options = ''.join(f'        {key}={value!r},\n' for key, value in backbone.items())
    return f'model = dict(\n    backbone=dict(\n{options}    ),\n)'


def main() -> None:
    args = make_parser().parse_args()
    dst = Path(args.dst)
    if dst.is_dir():
        raise UserError(f"'{dst}' is a folder; name the file to write")
    if dst.exists() and Path(args.src).exists() and dst.samefile(args.src):
        raise UserError(f"'{dst}' is the published file itself; choose another name")
    checkpoint = load_file(args.src, as_published=True)
    try:
        conversion = convert(pick_weights(checkpoint, ema=args.ema))
    except UserError as error:
        raise UserError(f"'{args.src}': {error}") from error
    check_numbers(conversion.state_dict, args.src)
    save_weights(conversion.state_dict, checkpoint.get('meta'), dst)
    print(describe(conversion))
    print(f"{len(conversion.state_dict)} tensors written to '{dst}'")
    if has_averaged_weights(checkpoint) and not args.ema:
        print('the file also holds averaged weights: --ema converts those')


if __name__ == '__main__':
    launch.run(main)

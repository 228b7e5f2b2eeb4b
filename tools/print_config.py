"""Print a config as the tools see it: with all that it inherits, and with overrides.

python tools/print_config.py configs/paca/mask_rcnn_paca_s_1x.py
python tools/print_config.py configs/paca/mask_rcnn_paca_s_1x.py --out whole.py
python tools/print_config.py configs/paca/paca_t_in1k.py --diff configs/paca/paca_s_in1k.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.errors import UserError, last_line
from mmdense.files import replacing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print a config with all that it inherits')
    parser.add_argument('config', help='config file path')
    add_cfg_options(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument('--out', type=Path, help='write it to this .py file instead')
    target.add_argument(
        '--diff', metavar='OTHER_CONFIG', help='print only what is different in another config'
    )
    return parser.parse_args()


def write(cfg: Config, path: Path) -> None:
    """Write a file that loads to the same config and inherits nothing.

    Raises:
        UserError: When it cannot be written, or holds a value that Python has no literal for.
    """
    if path.suffix != '.py':
        raise UserError(f"--out '{path}': name a .py file")
    text = cfg.pretty_text
    try:
        changed = compare(cfg, Config.fromstring(text, '.py'))
    except Exception as error:
        raise UserError(f'this config has no form as a file: {last_line(error)}') from error
    if changed:
        raise UserError(f'this config has no form as a file: {changed[0]}')
    with replacing(path) as part:
        part.write_text(text)


def compare(cfg: Config, other: Config) -> list[str]:
    """What differs, as ``key: here -> there``."""
    here, there = flatten(cfg.to_dict()), flatten(other.to_dict())
    lines = []
    for key in here | there:
        values = [repr(side[key]) if key in side else '(absent)' for side in (here, there)]
        if values[0] != values[1]:
            lines.append(f'{key}: {values[0]} -> {values[1]}')
    return lines


def flatten(node: object, name: str = '') -> dict[str, object]:
    """The values below a node by their dotted keys; a list without dicts in it is one value."""
    if not node or not holds_dict(node):
        return {name: node}
    children = node.items() if isinstance(node, dict) else enumerate(node)
    flat = {}
    for key, child in children:
        flat |= flatten(child, f'{name}.{key}' if name else str(key))
    return flat


def holds_dict(node: object) -> bool:
    """Whether a node is a dict, or a list with one somewhere in it."""
    return isinstance(node, dict) or (isinstance(node, list | tuple) and any(map(holds_dict, node)))


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.diff:
        other = read_config(args.diff)
        print('\n'.join(compare(cfg, other)) or 'no difference')
    elif args.out:
        write(cfg, args.out)
        print(f"written to '{args.out}'")
    else:
        print(cfg.pretty_text)


if __name__ == '__main__':
    launch.run(main)

"""Look into a backbone: clusters, attention, similarity, proxies, displacement, feature maps.

python tools/visualize.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT photo.jpg
python tools/visualize.py configs/msf/msf_s_in1k.py CHECKPOINT photo.jpg \\
    --kinds attention --query 0.3 0.6

Writes one page per kind and place in the model: heat maps over the picture that the model saw.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.logging import MMLogger
from tqdm import tqdm

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import load_model, pick_device
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.data import build_pipeline
from mmdense.engine.toolboxes import check_model_config
from mmdense.errors import UserError
from mmdense.inference.drawing import packs_rgb, to_picture
from mmdense.inference.predict import load_image
from mmdense.inference.visualize import (
    draw_view,
    find_pixel,
    list_kinds,
    look,
    name_classes,
    run_parts,
)

KINDS = list_kinds()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Look into a backbone')
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('image', help='a picture')
    parser.add_argument(
        '--out-dir', help='where pages go (default: work_dirs/<config>/views/<image>)'
    )
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=KINDS, help='default: all')
    parser.add_argument(
        '--query',
        type=float,
        nargs=2,
        default=(0.5, 0.5),
        metavar=('X', 'Y'),
        help='whose attention: a point, as fractions of width and height (default: the middle)',
    )
    parser.add_argument(
        '--max-maps', type=int, default=14, help='heat maps on a page at most (default: 14)'
    )
    launch.add_device(parser)
    add_cfg_options(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if not all(0 <= side <= 1 for side in args.query):
        parser.error('--query takes two fractions between 0 and 1')
    if args.max_maps < 1:
        parser.error('--max-maps must be at least 1')
    return args


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg = read_config(args.config, args.cfg_options)
    check_model_config(cfg)
    device = pick_device(args.device)
    batch = load_image(build_pipeline(cfg), args.image)
    model = load_model(cfg, args.checkpoint, device)
    picture = to_picture(batch['inputs'][0], packs_rgb(cfg, 'test'))
    query = find_pixel(args.query, picture)
    views = look(model, lambda: run_parts(model, batch), query, args.kinds)
    if not views:
        name = type(model.backbone).__name__
        raise UserError(f'{name} has none of these to show: {", ".join(args.kinds)}')
    out_dir = Path(
        args.out_dir or Path('work_dirs', Path(args.config).stem, 'views', Path(args.image).stem)
    )
    classes = model.dataset_meta['classes']
    pages = [(f'{kind}_{view.name}.png', view) for kind in views for view in views[kind]]
    for name, view in tqdm(pages, 'pages', disable=None):
        draw_view(picture, name_classes(view, classes), out_dir / name, args.max_maps)
    for kind, found in views.items():
        print(f'{kind}: {len(found)} pages')
    print(f"'{out_dir}'")


if __name__ == '__main__':
    launch.run(main)

"""Look into a backbone: clusters, attention, similarity, proxies, displacement, feature maps.

python tools/visualize.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT photo.jpg
python tools/visualize.py configs/msf/msf_s_in1k.py CHECKPOINT photo.jpg \\
    --kinds attention --query 0.3 0.6

Writes one page per kind and place in the model: heat maps over the picture that the model saw.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mmengine.logging import MMLogger
from torch import nn
from tqdm import tqdm

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.backbones.views import KINDS, look
from mmdense.engine import inference, launch
from mmdense.engine.drawing import draw_view, packs_rgb, to_picture
from mmdense.engine.errors import UserError
from mmdense.heads import PaCaSegHead


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Look into a backbone')
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('image', help='a picture')
    parser.add_argument(
        '--out-dir', help='where pages go (default: work_dirs/<config>/views/<image>)'
    )
    parser.add_argument(
        '--kinds', nargs='+', choices=tuple(KINDS), default=tuple(KINDS), help='default: all'
    )
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
    launch.add_cfg_options(parser)
    args = parser.parse_args()
    if not all(0 <= side <= 1 for side in args.query):
        parser.error('--query takes two fractions between 0 and 1')
    if args.max_maps < 1:
        parser.error('--max-maps must be at least 1')
    return args


def run(model: nn.Module, batch: dict) -> None:
    """What there is to see lies in the backbone and the PaCa head."""
    features = model.extract_feat(model.data_preprocessor(batch)['inputs'])
    if isinstance(getattr(model, 'decode_head', None), PaCaSegHead):
        model.decode_head(features)


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg = launch.read_config(args.config, args.cfg_options)
    inference.check_task(cfg, args.config)
    device = inference.pick_device(args.device)
    batch = inference.load_image(inference.build_pipeline(cfg), args.image)
    model = inference.load_model(cfg, args.checkpoint, device)
    picture = to_picture(batch['inputs'][0], packs_rgb(cfg, 'test'))
    height, width = picture.shape[:2]
    query = (int(args.query[0] * (width - 1)), int(args.query[1] * (height - 1)))
    views = look(model, lambda: run(model, batch), query, args.kinds)
    if not views:
        name = type(model.backbone).__name__
        raise UserError(f'{name} has none of these to show: {", ".join(args.kinds)}')
    out_dir = Path(
        args.out_dir or Path('work_dirs', Path(args.config).stem, 'views', Path(args.image).stem)
    )
    classes = model.dataset_meta['classes']
    pages = [(f'{kind}_{view.name}.png', view) for kind in views for view in views[kind]]
    pages = [(name, v if v.name != 'head' else replace(v, labels=classes)) for name, v in pages]
    for name, view in tqdm(pages, 'pages', disable=None):
        draw_view(picture, view, out_dir / name, args.max_maps)
    for kind, found in views.items():
        print(f'{kind}: {len(found)} pages')
    print(f"'{out_dir}'")


if __name__ == '__main__':
    launch.run(main)

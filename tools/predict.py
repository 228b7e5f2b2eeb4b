"""Predict on pictures: an overlay and a JSON for each, by a classifier, detector or segmentor.

python tools/predict.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT photo.jpg
python tools/predict.py configs/paca/upernet_paca_s_160k.py CHECKPOINT folder --out-dir results
python tools/predict.py configs/fcvit/upernet_fcvit_b12_160k.py CHECKPOINT folder --optimize

Writes results/vis/NAME.png and results/preds/NAME.json, of a segmentor also preds/NAME.png, the
label map.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mmcv
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement
from tqdm import tqdm

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import count_channels, load_model, pick_device
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.data import build_pipeline
from mmdense.engine.toolboxes import check_model_config
from mmdense.errors import UserError, first_line, last_line
from mmdense.inference import drawing, tiles
from mmdense.inference.optimize import add_optimize, check_optimize, optimize
from mmdense.inference.predict import (
    describe,
    find_images,
    load_image,
    predict,
    write_results,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Predict on pictures')
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('inputs', nargs='+', help='pictures, or folders of them')
    parser.add_argument(
        '--out-dir', help='where results go (default: work_dirs/<config>/predictions)'
    )
    drawing.add_score_thr(parser)
    tiles.add_tile(parser)
    add_optimize(parser)
    launch.add_device(parser)
    add_cfg_options(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    check_optimize(parser, args)
    return args


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg = read_config(args.config, args.cfg_options)
    check_model_config(cfg)
    if args.tile:
        tiles.check_tiles(cfg)
    device = pick_device(args.device)
    out_dir = Path(args.out_dir or Path('work_dirs', Path(args.config).stem, 'predictions'))
    images = find_images(args.inputs, out_dir)
    pipeline = build_pipeline(cfg)
    model = load_model(cfg, args.checkpoint, device)
    if args.optimize:
        quick = optimize(model, args.precision, args.execution, count_channels(cfg))
        model = quick.model
        print(f'optimized: {quick.describe()}')
    classes = model.dataset_meta['classes']
    tiled = tiles.Predictor(model, pipeline, args.tile, args.score_thr) if args.tile else None
    visualizer = drawing.build_visualizer(cfg, model.dataset_meta)

    def run(image: Path) -> BaseDataElement:
        try:
            return tiled(image) if tiled else predict(model, load_image(pipeline, image))
        except UserError:
            raise
        except Exception as error:  # of a shape, say, that a layer cannot take
            raise UserError(f"'{image}' cannot be processed: {first_line(error)}") from error

    failed = []
    for name, image in tqdm(images.items(), 'pictures', disable=None):
        try:
            sample = run(image)
            content = dict(image=str(image), **describe(cfg, sample, classes, args.score_thr))
            picture = mmcv.imread(str(image), channel_order='rgb')
            if tiled and tiled.is_large(picture):
                overlay = tiles.draw(visualizer, picture, sample, args.score_thr)
            else:
                overlay = drawing.draw_sample(visualizer, picture, sample, True, args.score_thr)
            write_results(out_dir, name, content, overlay, sample)
        except UserError as error:
            failed.append(error)
    print(f"{len(images) - len(failed)} of {len(images)} pictures: '{out_dir}'")
    for error in failed[:-1]:
        print(f'error: {last_line(error)}', file=sys.stderr)
    if failed:
        raise failed[-1]


if __name__ == '__main__':
    launch.run(main)

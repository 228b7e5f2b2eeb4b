"""Look at a data set: what comes out of its pipeline, with the annotations drawn on it.

python tools/browse.py configs/digits/mask_rcnn_paca_digits.py
python tools/browse.py configs/paca/upernet_paca_s_160k.py --split val --number 50 --out pictures

Reads no weights and builds no model. Pictures are drawn by the toolbox's own visualizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from mmengine.runner import set_random_seed
from tqdm import tqdm

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.checks import check_data
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.data import build_dataset
from mmdense.engine.toolboxes import check_model_config
from mmdense.files import replacing
from mmdense.inference import drawing


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Look at a data set with its annotations')
    parser.add_argument('config', help='config file path')
    parser.add_argument('--out', help='folder for pictures (default: work_dirs/<config>/browse)')
    parser.add_argument('--number', type=int, default=20, help='how many samples (default: 20)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the samples and their augmentation (default: 0)'
    )
    add_cfg_options(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if args.number < 1:
        parser.error('--number must be at least 1')
    return args


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    check_model_config(cfg)
    check_data(cfg, (f'{args.split}_dataloader',))
    dataset = build_dataset(cfg, args.split)
    visualizer = drawing.build_visualizer(cfg, dataset.metainfo)
    is_rgb = drawing.packs_rgb(cfg, args.split)
    out = Path(args.out or Path('work_dirs', Path(args.config).stem, 'browse'))
    digits = len(str(len(dataset)))
    indices = np.random.default_rng(args.seed).permutation(len(dataset))[: args.number]
    for index in tqdm(sorted(indices.tolist()), 'pictures', disable=None):
        set_random_seed(args.seed + index)
        item = dataset[index]
        sample = item['data_samples']
        picture = drawing.to_picture(item['inputs'], is_rgb)
        picture = drawing.draw_sample(visualizer, picture, sample, predicted=False)
        name = f'{index:0{digits}}_{Path(sample.get("img_path") or "").stem}'
        with replacing(out / f'{name.rstrip("_")}.png') as part:
            cv2.imwrite(str(part), picture[..., ::-1])
    print(f"{len(indices)} of {len(dataset)} samples: '{out}'")


if __name__ == '__main__':
    launch.run(main)

"""Train a classifier, detector or segmentor.

python tools/train.py configs/paca/mask_rcnn_paca_s_1x.py
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_1x.py 8
"""

from __future__ import annotations

import argparse

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch, training


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a classifier, detector or segmentor')
    launch.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint, or without a value from the newest of the work dir',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on the CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args)
    if args.amp:
        training.enable_amp(cfg)
    if args.auto_scale_lr:
        training.enable_auto_scale_lr(cfg)
    resume = args.resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto'))
    if launch.may_have_begun():
        training.set_resume(cfg, 'auto')
    if resume and not (launch.may_have_begun() and cfg.resume):
        training.set_resume(cfg, resume)
    whole_model = cfg.get('resume', False)
    launch.check_once(cfg, ('train_dataloader', 'val_dataloader'), whole_model)
    if not args.dry_run:
        training.train(cfg)


if __name__ == '__main__':
    launch.run(main)

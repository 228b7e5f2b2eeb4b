"""Evaluate a classifier, detector or segmentor.

python tools/test.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT
bash tools/dist_test.sh configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT 8
"""

from __future__ import annotations

import argparse
import os

from mmengine.config import Config

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.checks import check_run
from mmdense.engine.errors import UserError
from mmdense.engine.tta import enable_tta


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a classifier, detector or segmentor')
    launch.add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        help='write the predictions: a .pkl file, or for a segmentor a folder of index PNGs',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions to this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between windows')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args)
    cfg.load_from = args.checkpoint
    if args.tta:
        enable_tta(cfg)
    if args.show or args.show_dir:
        enable_visualization(cfg, args)
    if args.out:
        enable_dump(cfg, args.out)
    if launch.is_main_process():
        check_run(cfg, ('test_dataloader',), whole_model=True)
    else:  # mmengine's hook would write the one file of metrics from every process at once
        cfg.setdefault('default_hooks', {})['logger'] = None
    if args.dry_run:
        return
    launch.build_runner(cfg).test()


def enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    """Turn on the toolbox's visualization hook, each of which has its own names for it."""
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization in the config')
    hook.update(show=args.show, wait_time=args.wait_time)
    scope = cfg.get('default_scope')
    hook['enable' if scope == 'mmpretrain' else 'draw'] = True
    hook['interval'] = 1
    if args.show_dir:
        show_dir = os.path.abspath(args.show_dir)  # the hooks would put it below the work dir
        if scope == 'mmseg':
            cfg.visualizer.save_dir = show_dir
        else:
            hook['out_dir' if scope == 'mmpretrain' else 'test_out_dir'] = show_dir


def enable_dump(cfg: Config, out: str) -> None:
    """Write the predictions beside the metrics."""
    if cfg.get('default_scope') == 'mmseg':
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise UserError(f"--out '{out}': predictions are written to a .pkl file")
    dump = 'DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type=dump, out_file_path=out)]


if __name__ == '__main__':
    launch.run(main)

"""Evaluate a classifier, detector or segmentor.

python tools/test.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT
bash tools/dist_test.sh configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT 8
"""

from __future__ import annotations

import argparse

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import build_runner
from mmdense.engine.processes import is_main_process
from mmdense.engine.testing import enable_dump, enable_tta, enable_visualization
from mmdense.inference.optimize import add_optimize, check_optimize, enable_optimize
from mmdense.inference.tiles import add_tile, enable_tiles
from mmdense.reporting.evaluation import enable_report, find_report_path, write_report


def make_parser() -> argparse.ArgumentParser:
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
    add_tile(parser)
    add_optimize(parser)
    parser.add_argument(
        '--report',
        nargs='?',
        const='',
        metavar='FILE',
        help='write a page about the results (default: report.html in the work dir)',
    )
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if args.tile and (args.tta or args.show or args.show_dir or args.out):
        parser.error(
            '--tile goes without --tta, --show, --show-dir and --out; predict --tile writes '
            'predictions'
        )
    check_optimize(parser, args)
    return args


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args)
    cfg.load_from = args.checkpoint
    if args.optimize:
        enable_optimize(cfg, args.precision, args.execution)
    if args.tta:
        enable_tta(cfg)
    if args.tile:
        enable_tiles(cfg, args.tile)
    if args.show or args.show_dir:
        enable_visualization(cfg, args.show, args.show_dir, args.wait_time)
    if args.out:
        enable_dump(cfg, args.out)
    if args.report is not None:
        enable_report(cfg)
        report = find_report_path(cfg, args.report)
    launch.check_once(cfg, ('test_dataloader',), whole_model=True)
    if not is_main_process():
        # mmengine's hook would write the one file of metrics from every process at once.
        cfg.setdefault('default_hooks', {})['logger'] = None
    if args.dry_run:
        return
    runner = build_runner(cfg)
    metrics = runner.test()
    if args.report is not None and is_main_process():
        write_report(cfg, runner.test_evaluator.metrics, metrics, report)
        print(f"report: '{report}'")


if __name__ == '__main__':
    launch.run(main)

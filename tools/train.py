"""Train a classifier, detector or segmentor.

python tools/train.py configs/paca/mask_rcnn_paca_s_1x.py
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_1x.py 8
python tools/train.py --data FOLDER
"""

from __future__ import annotations

import argparse
import os

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch, training
from mmdense.engine.processes import is_main_process, may_have_begun
from mmdense.errors import UserError
from mmdense.intake.examining import examine
from mmdense.intake.models import find_input, find_model, read_model
from mmdense.intake.preparing import check_place, find_written, get_place, prepare
from mmdense.reporting.data import write_report


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Train a classifier, detector or segmentor')
    launch.add_common_arguments(parser, config='?')
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help='in place of a config: train on the pictures and annotations of a folder',
    )
    parser.add_argument('--model', help='with --data: a config of ours (default: one for a CPU)')
    parser.add_argument('--epochs', type=int, help='with --data: how many (default: by the data)')
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
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if (args.config is None) == (args.data is None):
        parser.error('name a config, or a folder with --data')
    if args.data is None and (args.model or args.epochs):
        parser.error('--model and --epochs go with --data')
    if args.epochs is not None and args.epochs < 1:
        parser.error('--epochs must be at least 1')
    return args


def write_config(args: argparse.Namespace) -> str:
    """The config for ``--data``: the one that this run began with, or a new one."""
    is_again = may_have_begun() or os.environ.get('MMDENSE_CHECKED') == '1'
    has_begun = args.resume or is_again
    known = find_written(args.data, args.model) if has_begun else None
    if known and args.epochs and not is_again:
        raise UserError(
            f"'{known}' says how many epochs its training has: leave --epochs out, or give "
            f'--cfg-options train_cfg.max_epochs={args.epochs}'
        )
    if known:
        if is_main_process():
            print(f"config: '{known}', as it was written", flush=True)
        return str(known)
    if args.launcher != 'none':
        raise UserError(
            f"--data with --launcher {args.launcher}: call tools/train.py --data '{args.data}' "
            '--dry-run first, which writes a config, and launch that; dist_train.sh does both'
        )
    check_place(args.data)
    examination = examine(args.data)
    page = get_place(args.data) / 'data.html'
    model = read_model(find_model(args.model, examination.folder.task))
    write_report(examination, find_input(model), page)
    print(f"report: '{page}'")
    path, said = prepare(examination, args.model, args.epochs, checked=not args.no_data_check)
    print(*said, sep='\n', flush=True)
    return str(path)


def main() -> None:
    args = parse_args()
    if args.data is not None:
        args.config = write_config(args)
    cfg = launch.load_config(args)
    if args.amp:
        training.enable_amp(cfg)
    if args.auto_scale_lr:
        training.enable_auto_scale_lr(cfg)
    resume = args.resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto'))
    if may_have_begun():
        training.set_resume(cfg, 'auto')
    if resume and not (may_have_begun() and cfg.resume):
        training.set_resume(cfg, resume)
    whole_model = cfg.get('resume', False)
    launch.check_once(cfg, ('train_dataloader', 'val_dataloader'), whole_model)
    if not args.dry_run:
        training.train(cfg)


if __name__ == '__main__':
    launch.run(main)

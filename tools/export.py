"""Export a model to one file: ONNX, or torch.export's .pt2, by the suffix of the output.

python tools/export.py configs/paca/paca_s_in1k.py CHECKPOINT paca_s.onnx
python tools/export.py configs/paca/upernet_paca_s_160k.py CHECKPOINT upernet.onnx
python tools/export.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT mask_rcnn.onnx --uint8
python tools/export.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT maps.onnx --part neck
python tools/export.py configs/fcvit/fcvit_b12_in1k.py CHECKPOINT fcvit.pt2 --part backbone

Height and width are free, and the batch but of a whole detector or with --uint8. The file is run at
three sizes and kept only if it agrees with the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import count_channels, load_model
from mmdense.engine.checks import check_data
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import check_model_config, find_toolbox
from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.inference.export import (
    FORMATS,
    get_meta,
    make_exported,
    write_and_compare,
)
from mmdense.inference.optimize import optimize
from mmdense.inference.quantize import use_int8


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Export a model to ONNX or torch.export')
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help=f'the file to write: {" or ".join(FORMATS)}')
    parser.add_argument(
        '--part',
        choices=('backbone', 'neck', 'model'),
        default='model',
        help='backbone: its maps; neck: the maps after the neck; model (default): logits, or what '
        'a detector finds',
    )
    parser.add_argument(
        '--optimize',
        action='store_true',
        help='fold batch norms into convolutions before',
    )
    parser.add_argument(
        '--uint8',
        action='store_true',
        help='the file takes a picture, uint8 (height, width, 3) in RGB, and normalizes it',
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='layers in 8 bits for CPUs, with --uint8; kept only if validation loses no more than '
        'a point',
    )
    parser.add_argument(
        '--calibrate',
        type=int,
        default=64,
        metavar='N',
        help='training pictures that --int8 takes its scales from (default: %(default)s)',
    )
    add_cfg_options(parser)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg = read_config(args.config, args.cfg_options)
    check_model_config(cfg)
    task = find_toolbox(cfg).task
    out = Path(args.out)
    if out.suffix not in FORMATS:
        raise UserError(f"'{out}': name a file that ends with {' or '.join(FORMATS)}")
    if args.int8 and not (args.uint8 and args.part == 'model' and out.suffix == '.onnx'):
        raise UserError('--int8 needs --uint8, the whole model, and a file that ends with .onnx')
    if args.calibrate < 1:
        raise UserError(f'--calibrate {args.calibrate}: at least one picture is needed')
    if args.int8:
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
    model = load_model(cfg, args.checkpoint)
    channels = count_channels(cfg)
    written = optimize(model, in_channels=channels).model if args.optimize else model
    with replacing(out) as path:
        try:
            module = make_exported(written, args.part, args.uint8)
            reference = make_exported(model, args.part, args.uint8)
            meta = get_meta(cfg, model, module)
            comparisons = write_and_compare(module, channels, path, meta, reference)
        except ImportError as error:
            raise UserError(f"{error}: pip install 'mmdense[export]'") from error
        except Exception as error:  # onnxruntime's have no class of their own
            cause = error
            while cause.__cause__ is not None:  # PyTorch tells how to report it before what it is
                cause = cause.__cause__
            reason = str(cause).splitlines()[0]
            raise UserError(f'this {task} cannot be exported: {reason}') from error
        for comparison in comparisons:
            print(f'{" x ".join(map(str, comparison.shape))}: {comparison.text}')
            if not comparison.agrees:
                raise UserError('the file differs from the model; not kept')
        if args.int8:
            use_int8(cfg, module, path, args.calibrate)
    name = type(model.backbone).__name__
    print(f"{args.part} of this {name} {task}: '{out}' ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == '__main__':
    launch.run(main)

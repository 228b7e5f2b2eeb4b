"""Export a model to one file: ONNX, or torch.export's .pt2, by the suffix of the output.

python tools/export.py configs/paca/paca_s_in1k.py CHECKPOINT paca_s.onnx
python tools/export.py configs/paca/upernet_paca_s_160k.py CHECKPOINT upernet.onnx
python tools/export.py configs/paca/mask_rcnn_paca_s_1x.py CHECKPOINT maps.onnx    # backbone + FPN
python tools/export.py configs/fcvit/fcvit_b12_in1k.py CHECKPOINT fcvit.pt2 --part backbone

Batch, height and width are free. The file is run at three sizes and kept only if it agrees with
the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import load_model
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import check_model_config, find_toolbox
from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.inference.export import FORMATS, Exported, get_meta, write_and_compare

TOLERANCE = 1e-4  # of the largest value of an output


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Export a model to ONNX or torch.export')
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help=f'the file to write: {" or ".join(FORMATS)}')
    parser.add_argument(
        '--part',
        choices=('backbone', 'neck', 'model'),
        help='backbone: its maps; neck: the maps after the neck; model: logits. By default the '
        "model, and of a detector the neck: its whole can't be exported",
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
    model = load_model(cfg, args.checkpoint)
    part = args.part or ('neck' if task == 'detector' else 'model')
    channels = cfg.model.backbone.get('in_channels', 3)
    with replacing(out) as path:
        try:
            module = Exported(model, part).eval()
            errors = write_and_compare(module, channels, path, get_meta(cfg, model))
        except ImportError as error:
            raise UserError(f"{error}: pip install 'mmdense[export]'") from error
        except Exception as error:  # onnxruntime's have no class of their own
            cause = error
            while cause.__cause__ is not None:  # PyTorch tells how to report it before what it is
                cause = cause.__cause__
            reason = str(cause).splitlines()[0]
            raise UserError(f'this {task} cannot be exported: {reason}') from error
        for (batch, height, width), error in errors.items():
            shape = f'{batch} x {channels} x {height} x {width}'
            print(f'{shape}: largest relative error {error:.1e}')
            if not error <= TOLERANCE:
                raise UserError(
                    f'the file differs from the model by more than {TOLERANCE}; not kept'
                )
    name = type(model.backbone).__name__
    print(f"{part} of this {name} {task}: '{out}' ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == '__main__':
    launch.run(main)

"""An exported file in whole numbers of 8 bits, and what that costs and gains."""

from __future__ import annotations

import io
import logging
import timeit
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from mmengine.config import Config
from torch import Tensor

from ..engine.data import build_dataset
from ..engine.toolboxes import TOOLBOXES
from ..errors import UserError
from .evaluate_file import evaluate_file, to_picture
from .export import INPUT, Outputs, Prepared, open_onnx

# What may be lost, one point, of each metric that validation gives.
ALLOWED = {key: box.whole / 100 for box in TOOLBOXES.values() for key in box.keys}
LAYERS = ['Conv', 'Gemm', 'MatMul']  # in 8 bits; what lies between stays in float32


def use_int8(cfg: Config, module: Prepared, path: Path, number: int) -> None:
    """Put a file in 8 bits in the place of one in float32, and print what is lost and gained.

    Args:
        cfg: With training and validation data.
        module: What the file was written from.
        path: The file.
        number: Of pictures to calibrate with.

    Raises:
        UserError: When validation loses more than a point.
    """
    pictures = pick_pictures(cfg, number)
    float_run = open_onnx(path)
    before = evaluate_file(cfg, module, float_run)
    quantize(path, path, pictures)
    run = open_onnx(path)
    comparisons = compare_metrics(before, evaluate_file(cfg, module, run))
    for text, _ in comparisons:
        print(text)
    float_seconds, seconds = time_files([float_run, run], pictures[:20])
    print(
        f'{float_seconds * 1e3:.1f} ms a picture in float32, {seconds * 1e3:.1f} ms in int8: '
        f'{float_seconds / seconds:.2f} times as fast on this CPU'
    )
    if not all(is_good for _, is_good in comparisons):
        raise UserError('in int8 validation loses more than a point; not kept')


def pick_pictures(cfg: Config, number: int) -> list[Tensor]:
    """Pictures of the training pipeline, evenly through its data set: uint8 (H, W, 3) RGB.

    Raises:
        UserError: When the config has no training data.
    """
    with redirect_stdout(io.StringIO()):  # what pycocotools says of its index
        dataset = build_dataset(cfg, 'train')
    steps = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int)
    return [to_picture(dataset[int(i)]['inputs']) for i in steps]


class Reader:
    """Pictures as onnxruntime's calibration asks for them.

    Args:
        pictures: uint8 (H, W, 3) RGB.
    """

    def __init__(self, pictures: Sequence[Tensor]) -> None:
        self.left = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input of the file, or None after the last."""
        picture = next(self.left, None)
        return None if picture is None else {INPUT: picture.numpy()}


def quantize(path: Path, out: Path, pictures: Sequence[Tensor]) -> None:
    """Write a file's convolutions and products with weights in 8 bits.

    Weights have a scale for each output channel; activations one for each tensor, from the smallest
    to the largest value that the pictures give.

    Args:
        path: An ONNX file that takes pictures.
        out: The file to write.
        pictures: uint8 (H, W, 3) RGB.
    """
    # only exporting needs them
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    logging.getLogger().setLevel(logging.ERROR)
    with TemporaryDirectory(dir=out.parent) as folder:
        prepared = Path(folder) / 'prepared.onnx'
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            Reader(pictures),
            op_types_to_quantize=LAYERS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(MatMulConstBOnly=True),
        )


def time_files(
    runs: Sequence[Callable[[Tensor], Outputs]], pictures: Sequence[Tensor]
) -> list[float]:
    """Median seconds for a picture of each file, which take turns."""
    seconds = [[] for _ in runs]
    for picture in [pictures[0], *pictures]:
        for run, taken in zip(runs, seconds):
            taken.append(timeit.timeit(lambda run=run, x=picture: run(x), number=1))
    return [median(taken[1:]) for taken in seconds]  # the first one allocates


def compare_metrics(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, bool]]:
    """By metric: both values in a line, and whether not more than a point is lost.

    Args:
        before: Of the file in float32.
        after: Of the file in 8 bits.

    A metric that is not there any more, as COCO's where nothing is found, is 0.

    Raises:
        UserError: When none of :data:`ALLOWED` is among them, or one that judges nothing: COCO's -1
            without objects.
    """
    names = [name for name in ALLOWED if name in before]
    if not names:
        raise UserError(
            f'val_evaluator gives none of {", ".join(ALLOWED)}, by which int8 is judged'
        )
    if any(before[name] < 0 for name in names):
        raise UserError('the validation data have no objects, by which int8 is judged')
    lost = {name: before[name] - after.get(name, 0.0) for name in names}
    return [
        (
            f'{name}: {before[name]:.3f} in float32, {after.get(name, 0.0):.3f} in int8',
            lost[name] <= ALLOWED[name] + 1e-9,
        )
        for name in names
    ]

"""A trained model as one file that runs without this package: ONNX, or a program of torch.export.

Height and width stay free, and the batch of what prepares no images. What comes out is compared
with the model at several sizes.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from mmengine.model import stack_batch
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import Upsample
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.export import Dim

from .export_detector import (
    Difference,
    ExportedDetector,
    compare_detections,
    find_mask_threshold,
    predict,
    translate_suppress,
)
from .export_mask2former import classify_pixels

if TYPE_CHECKING:
    import onnx

EXAMPLE = (2, 160, 224)  # batch, height, width: no side of any map is 1, no two are equal
CHECKED = ((1, 128, 128), (3, 97, 135), (2, 224, 320))
INPUT = 'image'
TOLERANCE = 1e-4  # of the largest value of an output
BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-4
MASK_TOLERANCE = 1e-3  # of the pixels: those where a probability is at the threshold


class AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` for any input size: ONNX has no such operator for a free one.

    Bin i of s covers positions floor(i n / s) up to ceil((i + 1) n / s), so that pooling is a
    product with a matrix of ones and zeros, divided by what a bin covers, from either side.

    Args:
        output_size: (height, width) of the result.
    """

    def __init__(self, output_size: tuple[int, int]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *output_size)."""
        rows, columns = (
            self.get_bins(num_bins, size, x)
            for num_bins, size in zip(self.output_size, x.shape[2:])
        )
        return rows @ x @ columns.T

    @staticmethod
    def get_bins(num_bins: int, size: int, like: Tensor) -> Tensor:
        """Weights (num_bins, size), each row sums to 1."""
        index = torch.arange(num_bins, device=like.device)[:, None]
        position = torch.arange(size, device=like.device)
        start = index * size // num_bins
        end = ((index + 1) * size + num_bins - 1) // num_bins
        inside = ((position >= start) & (position < end)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


def free_sizes(module: nn.Module) -> nn.Module:
    """A copy in which nothing fixes the image's size, as :func:`replace_layers` makes it."""
    module = copy.deepcopy(module)
    replace_layers(module)
    return module


def replace_layers(module: nn.Module) -> None:
    """Replace what would fix a traced image's size: adaptive pools but global ones, upsampling.

    mmseg's ``Upsample`` computes its size with ``int``, whose result a trace keeps.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            size = (size, size) if isinstance(size, int) else tuple(size)
            if size != (1, 1):
                setattr(module, name, AdaptivePool(size))
        elif isinstance(child, Upsample):
            align = child.align_corners
            upsample = nn.Upsample(child.size, child.scale_factor, child.mode, align)
            setattr(module, name, upsample)
        else:
            replace_layers(child)


class Exported(nn.Module):
    """What is exported of a model, as a function from a normalized image to tensors.

    Args:
        model: A classifier, detector or segmentor of :func:`mmdense.engine.building.load_model`;
            it is not changed.
        part: 'backbone': its maps; 'neck': the maps after the neck; 'model': a classifier's or a
            segmentor's logits; Mask2Former's scores, which are no logits.

    Raises:
        ValueError: When the model has no such part.
    """

    def __init__(self, model: nn.Module, part: str) -> None:
        super().__init__()
        if part == 'neck' and getattr(model, 'neck', None) is None:
            raise ValueError('this model has no neck')
        head = getattr(model, 'decode_head', None)
        if part == 'model' and not isinstance(head, BaseDecodeHead | Mask2FormerHead | NoneType):
            raise ValueError(
                f'{type(head).__name__} is no head that can be exported: export its backbone'
            )
        self.model = model
        self.part = part
        self.is_mask2former = part == 'model' and isinstance(head, Mask2FormerHead)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalized image (B, in_channels, H, W) -> maps, or logits (B, K) or (B, K, H, W)."""
        if self.part == 'backbone':
            return tuple(self.model.backbone(image))
        if self.part == 'neck':
            return tuple(self.model.neck(self.model.backbone(image)))
        if self.is_mask2former:
            maps = self.model.extract_feat(image)
            return classify_pixels(self.model.decode_head, maps, image.shape[2:])
        logits = self.model(image, mode='tensor')
        if logits.dim() == 2:
            return logits
        align_corners = self.model.align_corners
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=align_corners)

    def run_model(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The same by the model's own path, where :meth:`forward` has another."""
        if not self.is_mask2former:
            return self(image)
        metas = [dict(img_shape=tuple(image.shape[2:]))] * len(image)
        maps = self.model.extract_feat(image)
        return self.model.decode_head.predict(maps, metas, self.model.test_cfg)


class Preparation(nn.Module):
    """What a file does with its input before the network: the model's ``data_preprocessor``.

    Args:
        model: Whose preprocessor it is.
        is_picture: The input is a picture, uint8 (H, W, 3) in RGB, which is normalized; else it is
            an image, normalized already, float (1, in_channels, H, W).
        is_padded: The image is padded to what the model divides by, at the bottom and on the right.

    Raises:
        ValueError: When the model takes no pictures of three channels.
    """

    def __init__(self, model: nn.Module, is_picture: bool, is_padded: bool) -> None:
        super().__init__()
        prepare = model.data_preprocessor
        if is_picture and getattr(prepare, 'mean', torch.ones(0)).numel() != 3:
            raise ValueError('its data_preprocessor normalizes no picture of three channels')
        self.prepare = prepare
        self.is_picture = is_picture
        self.is_padded = is_padded
        self.divisor, self.fill = find_padding(prepare) if is_padded else (1, 0)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The network's input: the image, and where it is padded its own (height, width)."""
        if self.is_picture:
            if not wants_rgb(self.prepare):
                image = image.flip(2)
            image = image.permute(2, 0, 1).float()
            image = ((image - self.prepare.mean) / self.prepare.std)[None]
        if not self.is_padded:
            return (image,)
        height, width = image.shape[2:]
        size = torch.stack([torch.scalar_tensor(n, dtype=torch.int64) for n in (height, width)])
        pads = (0, -width % self.divisor, 0, -height % self.divisor)
        return F.pad(image, pads, value=float(self.fill)), size


class Prepared(nn.Module):
    """A network behind its preparation.

    Args:
        preparation: Turns the input of a file into that of the network.
        network: What is exported.
    """

    def __init__(self, preparation: Preparation, network: Exported | ExportedDetector) -> None:
        super().__init__()
        self.preparation = preparation
        self.network = network

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the network makes of it, of a segmentor without what was padded."""
        if isinstance(self.network, ExportedDetector):
            return self.network(*self.preparation(image))
        prepared, *size = self.preparation(image)
        outputs = self.network(prepared)
        return outputs[..., : size[0][0], : size[0][1]] if size else outputs


def make_exported(model: nn.Module, part: str, is_picture: bool = False) -> Exported | Prepared:
    """What is exported of a model, in eval mode.

    Args:
        model: A classifier, detector or segmentor of :func:`mmdense.engine.building.load_model`.
        part: As for :class:`Exported`, and 'model' of a detector: what it finds.
        is_picture: As for :class:`Preparation`.

    Raises:
        ValueError: When that cannot be exported.
    """
    is_detector = isinstance(model, BaseDetector)
    if part == 'model' and is_detector:
        return Prepared(Preparation(model, is_picture, True), ExportedDetector(model)).eval()
    exported = Exported(model, part)
    is_padded = exported.is_mask2former and find_padding(model.data_preprocessor)[0] > 1
    if is_picture or is_padded:
        return Prepared(Preparation(model, is_picture, is_padded), exported).eval()
    return exported.eval()


def find_padding(preprocessor: nn.Module) -> tuple[int, float]:
    """What a toolbox's preprocessor pads a test image to a multiple of, and with what."""
    if hasattr(preprocessor, 'pad_val'):  # MMSegmentation's
        return (preprocessor.test_cfg or {}).get('size_divisor', 1), preprocessor.pad_val
    return getattr(preprocessor, 'pad_size_divisor', 1), getattr(preprocessor, 'pad_value', 0)


def without_padding(preprocessor: nn.Module) -> nn.Module:
    """One that normalizes alike and pads nothing."""
    plain = copy.copy(preprocessor)
    plain.test_cfg, plain.pad_size_divisor = None, 1
    return plain


def wants_rgb(preprocessor: nn.Module) -> bool:
    """Whether a model's images are RGB; pictures are read as BGR."""
    to_rgb = getattr(preprocessor, 'to_rgb', False)  # MMPretrain's
    return bool(to_rgb or getattr(preprocessor, '_channel_conversion', False))


Outputs = list[np.ndarray]


def make_image(in_channels: int, batch: int, height: int, width: int) -> Tensor:
    """A normalized image of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, in_channels, height, width, generator=generator)


def make_picture(height: int, width: int) -> Tensor:
    """A picture uint8 (H, W, 3) of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)


def make_input(module: Exported | Prepared, in_channels: int, size: tuple[int, int, int]) -> Tensor:
    """Noise of a size (batch, height, width) as a file takes it; prepared inputs are single."""
    if not isinstance(module, Prepared):
        return make_image(in_channels, *size)
    if module.preparation.is_picture:
        return make_picture(*size[1:])
    return make_image(in_channels, 1, *size[1:])


def export_onnx(module: Exported | Prepared, in_channels: int, path: Path, meta: dict) -> None:
    """Write an ONNX file with named, free axes.

    Args:
        module: In eval mode, on the CPU.
        in_channels: Of the image.
        path: The file.
        meta: Text by name, kept in the file's metadata.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in ('onnxscript', 'onnx_ir', 'torch.onnx'):
            logging.getLogger(name).setLevel(logging.ERROR)
        if not isinstance(module, Prepared):
            inputs = (make_image(in_channels, *EXAMPLE),)
            program = trace(module, inputs, ({0: 'batch', 2: 'height', 3: 'width'},))
            program.model.metadata_props.update(meta)
            program.save(path)
            return
        export_prepared(module, in_channels, path, meta)


def export_prepared(module: Prepared, in_channels: int, path: Path, meta: dict) -> None:
    """:func:`export_onnx` of two graphs, traced one by one and joined.

    As one, the tracer would carry what sizes a padded image may have through every layer.
    """
    import onnx  # only exporting needs it

    preparation, network = module.preparation, module.network
    image = make_input(module, in_channels, EXAMPLE)
    axes = (0, 1) if preparation.is_picture else (2, 3)
    first = trace(preparation, (image,), (dict(zip(axes, ('height', 'width'))),)).model_proto
    inputs = preparation(image)
    free = {2: 'height', 3: 'width'}
    if preparation.divisor > 1:
        free = {
            axis: preparation.divisor * Dim(name, min=inputs[0].shape[axis] // preparation.divisor)
            for axis, name in free.items()
        }
    if not isinstance(network, ExportedDetector):
        inputs = inputs[:1]
    program = trace(network, inputs, (free, *(None for _ in inputs[1:])))
    second = program.model_proto
    first = onnx.compose.add_prefix(first, 'prepare_', rename_inputs=False)
    links = [(out.name, into.name) for out, into in zip(first.graph.output, second.graph.input)]
    model = onnx.compose.merge_models(first, second, links)
    opsets = {opset.domain: opset.version for opset in model.opset_import}  # of both, each once
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in opsets.items())
    if isinstance(network, ExportedDetector):
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[0].dim_param = 'detections'
    elif preparation.is_padded:
        cut_padding(model.graph)
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, **meta})
    onnx.save(model, path)


def cut_padding(graph: onnx.GraphProto) -> None:
    """Cut a graph's logits to the image's own size, which its preparation puts out besides."""
    import onnx

    for node in graph.node:
        node.output[:] = ['padded' if name == 'logits' else name for name in node.output]
    corner, axes = (
        onnx.numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in (('corner', [0, 0]), ('rows_and_columns', [2, 3]))
    )
    graph.initializer.extend([corner, axes])
    size = next(output for output in graph.output if output.name != 'logits')
    inputs = ['padded', corner.name, size.name, axes.name]
    graph.node.append(onnx.helper.make_node('Slice', inputs, ['logits']))
    graph.output.remove(size)
    for dim, name in zip(graph.output[0].type.tensor_type.shape.dim[2:], ('height', 'width')):
        dim.dim_param = name


def trace(
    module: nn.Module, inputs: tuple[Tensor, ...], free: tuple[dict | None, ...]
) -> torch.onnx.ONNXProgram:
    """A module as an ONNX program.

    Args:
        module: One of this file's, or a detector.
        inputs: An example.
        free: By input, the axes that have no fixed size, and their names.
    """
    outputs = module(*inputs)
    if isinstance(module, ExportedDetector):
        names, input_names = module.output_names, [INPUT, 'size']
    elif isinstance(module, Preparation):
        names, input_names = ['prepared', 'size'][: len(outputs)], [INPUT]
    else:
        names = ['logits'] if module.part == 'model' else [f'map{i}' for i in range(len(outputs))]
        input_names = [INPUT]
    return torch.onnx.export(
        free_sizes(module),
        inputs,
        input_names=input_names,
        output_names=names,
        dynamic_shapes=free,
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.mmdense.suppress.default: translate_suppress},
    )


def export_program(module: Exported, in_channels: int, path: Path, meta: dict) -> None:
    """Write a program of torch.export (``.pt2``), arguments as :func:`export_onnx`.

    Raises:
        ValueError: When the input is to be prepared: a program has no NMS without this package.
    """
    if isinstance(module, Prepared):
        raise ValueError('whole detectors, Mask2Former and pictures of uint8 go into .onnx files')
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(
            free_sizes(module), (make_image(in_channels, *EXAMPLE),), dynamic_shapes=(free,)
        )
        torch.export.save(program, path, extra_files={'meta.json': json.dumps(meta)})


def open_onnx(path: Path) -> Callable[[Tensor], Outputs]:
    """The function that an ONNX file holds, run by onnxruntime."""
    import onnxruntime  # only exporting needs it

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {INPUT: image.numpy()})


def open_program(path: Path) -> Callable[[Tensor], Outputs]:
    """The function that a ``.pt2`` file holds."""
    module = torch.export.load(path).module()

    def run(image: Tensor) -> Outputs:
        with torch.no_grad():
            out = module(image)
        return [t.numpy() for t in (out if isinstance(out, (tuple, list)) else [out])]

    return run


# suffix -> how a file is written, and how it is run
FORMATS: dict[str, tuple[Callable, Callable]] = {
    '.onnx': (export_onnx, open_onnx),
    '.pt2': (export_program, open_program),
}


@torch.no_grad()
def find_error(module: Exported, run: Callable[[Tensor], Outputs], image: Tensor) -> float:
    """:func:`measure_error` of what a file makes of an image to what the model does."""
    return measure_error(run(image), module.run_model(image))


def measure_error(found: Outputs, expected: Tensor | tuple[Tensor, ...]) -> float:
    """Largest difference of an output to the model's, by its largest value; may be NaN."""
    expected = [expected] if isinstance(expected, Tensor) else expected
    errors = [
        np.abs(a - b.numpy()).max() / np.abs(b.numpy()).max()
        for a, b in zip(found, expected, strict=True)
    ]
    return float(np.max(errors))  # of which one alone may be NaN


@dataclass(frozen=True)
class Comparison:
    """Of a file with its model, on one input.

    Args:
        shape: Of the input.
        text: What was found.
        agrees: Whether the file is the model.
    """

    shape: tuple[int, ...]
    text: str
    agrees: bool


@torch.no_grad()
def compare(
    module: Exported | Prepared, run: Callable[[Tensor], Outputs], image: Tensor
) -> Comparison:
    """What a file makes of an input beside what the model does: a detector, its own test path."""
    shape = tuple(image.shape)
    if not isinstance(module, Prepared):
        error = find_error(module, run, image)
    else:
        prepared, size = prepare(module, image)
        if isinstance(module.network, ExportedDetector):
            model = module.network.model
            found = [torch.from_numpy(output) for output in run(image)]
            expected = predict(model, prepared, size)
            difference = compare_detections(found, expected, find_mask_threshold(model))
            return Comparison(shape, *judge(difference, len(expected)))
        expected = module.network.run_model(prepared)
        if module.preparation.is_padded:
            expected = expected[..., : size[0], : size[1]]
        error = measure_error(run(image), expected)
    return Comparison(shape, f'largest relative error {error:.1e}', error <= TOLERANCE)


def prepare(module: Prepared, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """A file's input as its model's own preprocessor hands it on, and its (height, width)."""
    preparation = module.preparation
    if preparation.is_picture:  # to the model it is BGR
        prepare = preparation.prepare
        prepare = prepare if preparation.is_padded else without_padding(prepare)
        samples = [SegDataSample()] if getattr(prepare, 'test_cfg', None) else None
        data = dict(inputs=[image.flip(2).permute(2, 0, 1)], data_samples=samples)
        return prepare(data)['inputs'], tuple(image.shape[:2])
    images = stack_batch([image[0]], preparation.divisor, preparation.fill)
    return images, tuple(image.shape[2:])


def judge(difference: Difference, number: int) -> tuple[str, bool]:
    """A difference in words, and whether it is one of roundings alone."""
    text = f'{number} detections, boxes within {difference.boxes:.1e} pixels'
    text += f', scores within {difference.scores:.1e}'
    if difference.missing:
        text += f', {difference.missing} without partner'
    agrees = (
        difference.missing == 0
        and difference.boxes <= BOX_TOLERANCE
        and difference.scores <= SCORE_TOLERANCE
        and difference.masks <= MASK_TOLERANCE
    )
    return text, agrees


def write_and_compare(
    module: Exported | Prepared,
    in_channels: int,
    path: Path,
    meta: dict,
    reference: Exported | Prepared,
) -> list[Comparison]:
    """Write the file that its suffix asks for, and run it at several sizes.

    Arguments as :func:`export_onnx`, and what the file is compared with.
    """
    write, read = FORMATS[path.suffix]
    write(module, in_channels, path, meta)
    run = read(path)
    return [compare(reference, run, make_input(module, in_channels, size)) for size in CHECKED]


def get_meta(cfg: Config, model: nn.Module, module: Exported | Prepared) -> dict[str, str]:
    """What a user of the file must know: its input, the classes' names, how masks become pixels."""
    prepare = model.data_preprocessor
    is_picture = isinstance(module, Prepared) and module.preparation.is_picture
    meta = dict(
        config=cfg.filename, torch=torch.__version__, classes=list(model.dataset_meta['classes'])
    )
    for name in ('mean', 'std'):
        if hasattr(prepare, name) and not is_picture:
            meta[name] = getattr(prepare, name).flatten().tolist()
    meta['channels'] = 'RGB' if is_picture or wants_rgb(prepare) else 'BGR'
    if getattr(getattr(model, 'decode_head', None), 'out_channels', None) == 1:
        meta['threshold'] = model.decode_head.threshold
    if isinstance(module, Prepared) and 'masks' in getattr(module.network, 'output_names', ()):
        meta['mask_threshold'] = find_mask_threshold(model)
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()
    }

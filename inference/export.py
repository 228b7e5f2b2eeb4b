"""A trained model as one file that runs without this package: ONNX, or a program of torch.export.

Batch, height and width stay free. What comes out is compared with the model at several sizes.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.export import Dim

EXAMPLE = (2, 160, 224)  # batch, height, width: no side of any map is 1, no two are equal
CHECKED = ((1, 128, 128), (3, 97, 135), (2, 224, 320))
INPUT = 'image'


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
            segmentor's logits.

    Raises:
        ValueError: When the model has no such part.
    """

    def __init__(self, model: nn.Module, part: str) -> None:
        super().__init__()
        if part == 'neck' and getattr(model, 'neck', None) is None:
            raise ValueError('this model has no neck')
        if part == 'model' and not (hasattr(model, 'decode_head') or hasattr(model, 'head')):
            raise ValueError(
                'a detector picks regions by what is in the image, which cannot be traced: export '
                'its backbone or its neck'
            )
        self.model = model
        self.part = part

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalized image (B, in_channels, H, W) -> maps, or logits (B, K) or (B, K, H, W)."""
        if self.part == 'backbone':
            return tuple(self.model.backbone(image))
        if self.part == 'neck':
            return tuple(self.model.neck(self.model.backbone(image)))
        logits = self.model(image, mode='tensor')
        if logits.dim() == 2:
            return logits
        align_corners = self.model.align_corners
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=align_corners)


Outputs = list[np.ndarray]


def make_image(in_channels: int, batch: int, height: int, width: int) -> Tensor:
    """A normalized image of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, in_channels, height, width, generator=generator)


def export_onnx(module: Exported, in_channels: int, path: Path, meta: dict) -> None:
    """Write an ONNX file with named, free axes.

    Args:
        module: In eval mode, on the CPU.
        in_channels: Of the image.
        path: The file.
        meta: Text by name, kept in the file's metadata.
    """
    image = make_image(in_channels, *EXAMPLE)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in ('onnxscript', 'onnx_ir', 'torch.onnx'):
            logging.getLogger(name).setLevel(logging.ERROR)
        outputs = module(image)
        names = [f'map{i}' for i in range(len(outputs))]
        program = torch.onnx.export(
            free_sizes(module),
            (image,),
            input_names=[INPUT],
            output_names=['logits'] if module.part == 'model' else names,
            dynamic_shapes=({0: 'batch', 2: 'height', 3: 'width'},),
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update(meta)
    program.save(path)


def export_program(module: Exported, in_channels: int, path: Path, meta: dict) -> None:
    """Write a program of torch.export (``.pt2``), arguments as :func:`export_onnx`."""
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
    """Largest difference of an output to the model's, by that output's largest value."""
    expected = module(image)
    expected = [expected] if isinstance(expected, Tensor) else expected
    return max(
        float(np.abs(found - t.numpy()).max() / t.abs().max())
        for found, t in zip(run(image), expected, strict=True)
    )


def write_and_compare(
    module: Exported, in_channels: int, path: Path, meta: dict
) -> dict[tuple[int, int, int], float]:
    """Write the file that its suffix asks for, and run it: its error by (batch, height, width).

    Arguments as :func:`export_onnx`.
    """
    write, read = FORMATS[path.suffix]
    write(module, in_channels, path, meta)
    run = read(path)
    return {size: find_error(module, run, make_image(in_channels, *size)) for size in CHECKED}


def get_meta(cfg: Config, model: nn.Module) -> dict[str, str]:
    """What a user of the file must know: how to normalize an image, and the classes' names."""
    prepare = model.data_preprocessor
    meta = dict(
        config=cfg.filename, torch=torch.__version__, classes=list(model.dataset_meta['classes'])
    )
    for name in ('mean', 'std'):
        if hasattr(prepare, name):
            meta[name] = getattr(prepare, name).flatten().tolist()
    settings = {**cfg.get('data_preprocessor', {}), **(cfg.model.get('data_preprocessor') or {})}
    rgb = settings.get('bgr_to_rgb', settings.get('to_rgb', False))
    meta['channels'] = 'RGB' if rgb else 'BGR'
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()
    }

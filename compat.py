"""Makes the installed stack whole: mmcv's operators, configs by package name, a newer transformers.

``apply()`` runs when ``mmdense`` is imported and does three things, each only where needed.

1. **Operators.** mmcv is often installed as pure Python (no ``mmcv._ext``), and then nothing that
   imports ``mmcv.ops`` starts. The operators that detectors and segmentors reach have compiled
   twins in torchvision, for CPU and CUDA; a module of mmcv's C++ signatures on top of those takes
   the place of ``mmcv._ext``. Every other operator imports, and raises :class:`MissingOpError`
   when it is called. A compiled mmcv is left alone.
2. **Configs.** mmengine finds ``_base_ = 'mmdet::...'`` through a fixed table from import names to
   distribution names. The maintained OpenMMLab distributions have other names, and third-party
   packages are absent; their import names work as they are, so the table says so.
3. **transformers.** mmpretrain's vision-language models are written for transformers 4; beside a
   newer one their import ends that of every other model. They are then left out, by mmpretrain's
   own switch for machines without transformers.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import Tensor

MAX_TRANSFORMERS = 4
MAX_PIXELS = 2**28  # of a picture; they take 0.8 GB
CONFIG_PACKAGES = ('mmdet', 'mmseg', 'mmpretrain', 'mmdense')


class MissingOpError(NotImplementedError):
    """An operator that exists only in a compiled mmcv was called."""


def apply() -> None:
    """Mend this process; calling it again changes nothing."""
    # Before OpenCV is imported, which would read pictures four times as large.
    os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))
    if 'mmcv._ext' not in sys.modules and importlib.util.find_spec('mmcv._ext') is None:
        sys.modules['mmcv._ext'] = _TorchvisionOps()
        from mmcv.ops import multi_scale_deform_attn

        # Mask2Former: on a GPU too, take mmcv's formulation in PyTorch instead of its kernel.
        multi_scale_deform_attn.IS_CUDA_AVAILABLE = False
    mend_config_lookup()
    if has_new_transformers():
        from mmpretrain.utils import dependency

        dependency.WITH_MULTIMODAL = False


def has_new_transformers() -> bool:
    """Whether the installed transformers is newer than mmpretrain can import."""
    try:
        version = importlib.metadata.version('transformers')
    except importlib.metadata.PackageNotFoundError:
        return False
    return int(version.partition('.')[0]) > MAX_TRANSFORMERS


def mend_config_lookup() -> None:
    """Let ``package::path`` configs be found for packages whose distribution has another name.

    What another config inherits from ``mmdense::`` stays in the scope of the toolbox that it is
    written for: mmengine would look its models up in our registry, which has none of a toolbox's.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    installed = {dist.metadata['Name'] for dist in importlib.metadata.distributions()}
    for package in CONFIG_PACKAGES:
        if MODULE2PACKAGE.get(package) not in installed:
            MODULE2PACKAGE[package] = package

    find = Config._get_cfg_path
    if not hasattr(find, 'mended'):

        def find_without_our_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
            path, scope = find(cfg_path, filename)
            return path, None if scope == 'mmdense' else scope

        find_without_our_scope.mended = True
        Config._get_cfg_path = staticmethod(find_without_our_scope)


class _TorchvisionOps(ModuleType):
    """Stands in for ``mmcv._ext``: attributes are the functions below, or raise when called."""

    def __init__(self) -> None:
        super().__init__('mmcv._ext')
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        return _OPS.get(name) or _missing_op(name)


def _missing_op(name: str) -> Callable:
    def raise_missing(*args: object, **kwargs: object) -> None:
        raise MissingOpError(
            f"the mmcv operator '{name}' needs a compiled mmcv, and this mmcv has none. Install a "
            'C++ compiler (and the CUDA toolkit for GPU kernels) and run: pip install '
            '--no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv'
        )

    return raise_missing


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy NMS; ``offset`` 1 counts a box's width as x2 - x1 + 1 (MMDetection 1.x)."""
    from torchvision.ops import nms

    boxes, scores = boxes.float(), scores.float()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return nms(boxes, scores, iou_threshold)


def _softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017), method 0 naive, 1 linear, 2 gaussian.

    Writes (x1, y1, x2, y2, decayed score) of the kept boxes into the first rows of ``dets`` and
    returns their indices. The best box is taken until none is left; each time the scores of the
    rest decay with their overlap, and those below ``min_score`` are dropped.
    """
    boxes, scores = boxes.float(), scores.float().clone()
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    left = torch.arange(len(boxes))
    keep = []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(keep), :4] = boxes[best]
        dets[len(keep), 4] = scores[best]
        keep.append(int(best))
        left = left[left != best]

        top_left = torch.maximum(boxes[left, :2], boxes[best, :2])
        bottom_right = torch.minimum(boxes[left, 2:], boxes[best, 2:])
        inter = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
        iou = inter / (areas[left] + areas[best] - inter)
        if method == 0:
            weight = (iou < iou_threshold).float()
        elif method == 1:
            weight = torch.where(iou >= iou_threshold, 1 - iou, torch.ones_like(iou))
        else:
            weight = torch.exp(-(iou**2) / sigma)
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.tensor(keep, dtype=torch.long)


def _roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average RoIAlign of (B, C, H, W) at (R, 5) rois into ``output`` (R, C, h, w)."""
    from torchvision.ops import roi_align

    if pool_mode == 0:
        _missing_op("roi_align with pool_mode='max'")()
    feature, rois = _as_float(input), _as_float(rois)
    pooled = roi_align(
        feature, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
    )
    output.copy_(pooled)


def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    grad, rois = _as_float(grad_output), _as_float(rois)
    if grad.device.type != 'cpu':
        size = (aligned_height, aligned_width, *grad_input.shape)
        grad = torch.ops.torchvision._roi_align_backward(
            grad, rois, spatial_scale, *size, sampling_ratio, aligned
        )
    else:
        grad = _spread(grad, rois, grad_input.shape, spatial_scale, sampling_ratio, aligned)
    grad_input.copy_(grad)


def _spread(
    grad: Tensor,
    rois: Tensor,
    shape: tuple[int, ...],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The gradient (R, C, h, w) of pooled rois (R, 5) as that of their features (B, C, H, W).

    Bit-equal to torchvision's kernel, which finds each sample's four pixels anew for each channel:
    here they are found once, and the rows of channels are added up in its order.
    """
    (num_rois, channels, h, w), (batch, _, height, width) = grad.shape, shape
    rows = grad.permute(0, 2, 3, 1).reshape(num_rois * h * w, channels)
    image = rois[:, 0].long() * (height * width)
    left, top, right, bottom = (rois[:, 1:] * spatial_scale - 0.5 * aligned).unbind(1)
    size_x, size_y = right - left, bottom - top
    if not aligned:
        size_x, size_y = size_x.clamp(min=1), size_y.clamp(min=1)
    bin_x, bin_y = size_x / w, size_y / h
    if sampling_ratio > 0:
        grid_x = grid_y = torch.full_like(image, sampling_ratio)
    else:  # of a roi; one turned inside out has no samples
        grid_x, grid_y = bin_x.ceil().long().clamp(min=0), bin_y.ceil().long().clamp(min=0)
    ends = (h * w * grid_y * grid_x).cumsum(0)  # of each roi's samples, among those of all
    num_samples = int(ends[-1]) if num_rois else 0

    spread = grad.new_zeros(batch * height * width, channels)
    step = max(1, min(num_samples, 2**18 // channels))  # samples at a time: 4 MB of float32
    # Memory that is new at each step would take as long as the sums.
    picked, parts = grad.new_empty(step, channels), grad.new_empty(step, 4, channels)
    for begin in range(0, num_samples, step):
        sample = torch.arange(begin, min(begin + step, num_samples))
        roi = torch.searchsorted(ends, sample, right=True)
        nx, ny = grid_x[roi], grid_y[roi]
        rest = sample - ends[roi] + h * w * ny * nx  # (bin y, bin x, y, x) of a roi
        rest, x = rest // nx, rest % nx
        cell, y = rest // ny, rest % ny
        y0, y1, wy0, wy1, y_ok = _locate(top[roi], bin_y[roi], cell // w, y, ny, height)
        x0, x1, wx0, wx1, x_ok = _locate(left[roi], bin_x[roi], cell % w, x, nx, width)
        y0, y1 = image[roi] + y0 * width, image[roi] + y1 * width
        pixels = torch.stack((y0 + x0, y0 + x1, y1 + x0, y1 + x1), 1)
        weights = torch.stack((wy0 * wx0, wy0 * wx1, wy1 * wx0, wy1 * wx1), 1)
        ok = (y_ok & x_ok).nonzero().squeeze(1)
        some, part = picked[: len(ok)], parts[: len(ok)]
        torch.index_select(rows, 0, (cell + roi * (h * w))[ok], out=some)
        torch.mul(some.unsqueeze(1), weights[ok].unsqueeze(2), out=part)
        part /= (ny * nx)[ok, None, None]
        spread.index_add_(0, pixels[ok].flatten(), part.flatten(0, 1))
    return spread.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _locate(
    start: Tensor, size: Tensor, cell: Tensor, index: Tensor, grid: Tensor, limit: int
) -> tuple[Tensor, ...]:
    """Along an axis: both neighbours of each sample, their weights, and whether it counts."""
    at = start + cell * size + (index + 0.5) * size / grid
    counts = (at >= -1) & (at <= limit)
    at = at.clamp(min=0)
    low = at.long().clamp(max=limit - 1)
    high = (low + 1).clamp(max=limit - 1)
    beyond = torch.where(low < high, at - low, 0)
    return low, high, 1 - beyond, beyond, counts


def _sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al., ICCV 2017) of logits (N, K) at class indices (N,), K = background."""
    output.copy_(_sigmoid_focal_loss(input, target, weight, gamma, alpha))


def _sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """d loss / d logits, elementwise: each logit meets its own loss alone."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _sigmoid_focal_loss(logits, target, weight, gamma, alpha).sum()
        grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _sigmoid_focal_loss(
    input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    from torchvision.ops import sigmoid_focal_loss

    num_classes = input.shape[1]
    one_hot = torch.nn.functional.one_hot(target, num_classes + 1)[:, :num_classes].to(input)
    loss = sigmoid_focal_loss(input, one_hot, alpha=alpha, gamma=gamma)
    # An empty weight means unweighted; else it holds one factor per class, of the target's class.
    return loss * weight[target][:, None] if weight.numel() else loss


def _as_float(x: Tensor) -> Tensor:
    """torchvision's CPU kernels have no half types, which autocast may pass."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


_OPS: dict[str, Callable] = {
    'nms': _nms,
    'softnms': _softnms,
    'roi_align_forward': _roi_align_forward,
    'roi_align_backward': _roi_align_backward,
    'sigmoid_focal_loss_forward': _sigmoid_focal_loss_forward,
    'sigmoid_focal_loss_backward': _sigmoid_focal_loss_backward,
}

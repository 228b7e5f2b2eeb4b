"""The metric of an exported file, on the pictures that the config validates with."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from ..engine.data import prepare_loading
from ..errors import UserError
from .export import Outputs, Prepared
from .export_detector import ExportedDetector, find_mask_threshold, paste_masks


def build_validation(cfg: Config) -> tuple[torch.utils.data.DataLoader, Evaluator]:
    """The pictures of ``val_dataloader``, one by one, and the metric of ``val_evaluator``.

    Raises:
        UserError: When the config has no such data.
    """
    if cfg.get('val_dataloader') is None or cfg.get('val_evaluator') is None:
        raise UserError('the config has no val_dataloader with a val_evaluator')
    prepare_loading(cfg)
    settings = cfg.val_dataloader.to_dict()
    settings.update(batch_size=1, num_workers=0, persistent_workers=False)
    settings.update(collate_fn=dict(type='pseudo_collate'))
    settings.pop('batch_sampler', None)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        redirect_stdout(io.StringIO()),  # what pycocotools says of its index
    ):
        loader = Runner.build_dataloader(settings)
        evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for metric in evaluator.metrics:
        if hasattr(metric, 'img_ids'):  # COCO's: those of its file, were the data fewer
            data = loader.dataset
            metric.img_ids = [data.get_data_info(i)['img_id'] for i in range(len(data))]
    return loader, evaluator


@torch.no_grad()
def evaluate_file(
    cfg: Config, module: Prepared, run: Callable[[Tensor], Outputs]
) -> dict[str, float]:
    """A file's metrics by name, as tools/test.py has those of the model.

    Args:
        cfg: With the data.
        module: What the file was written from, with pictures as its input.
        run: The file.
    """
    loader, evaluator = build_validation(cfg)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        redirect_stdout(io.StringIO()),  # tables of pycocotools
    ):
        for batch in loader:
            evaluator.process([predict_with_file(module, run, batch)], batch)
        return evaluator.evaluate(len(loader.dataset))


def predict_with_file(
    module: Prepared, run: Callable[[Tensor], Outputs], batch: dict
) -> BaseDataElement:
    """What a file finds in the picture of a batch of one, as the toolbox's data sample."""
    (picture,), (sample,) = batch['inputs'], batch['data_samples']
    found = [torch.as_tensor(output) for output in run(to_picture(picture))]
    model = module.network.model
    if isinstance(module.network, ExportedDetector):
        sample.pred_instances = to_instances(found, sample, find_mask_threshold(model))
        return sample
    (logits,) = found
    if logits.dim() == 2:
        return model.head._get_predictions(logits, [sample])[0]
    align_corners = model.align_corners
    logits = F.interpolate(logits, sample.ori_shape, mode='bilinear', align_corners=align_corners)
    if logits.shape[1] == 1:  # object or background
        labels = (logits[0].sigmoid() > model.decode_head.threshold).long()
    else:
        labels = logits[0].argmax(dim=0, keepdim=True)
    sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
    return sample


def to_picture(image: Tensor) -> Tensor:
    """An image of the toolboxes' pipelines, (3, H, W) BGR, as a file takes it: (H, W, 3) RGB."""
    image = image.flip(0).permute(1, 2, 0)
    return image.round().clamp(0, 255).byte().contiguous()  # augmentation makes floats


def to_instances(
    found: list[Tensor], sample: BaseDataElement, mask_threshold: float
) -> InstanceData:
    """A file's detections in the pixels of the picture before it was resized."""
    boxes, labels, scores, *masks = found
    boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
    instances = InstanceData(bboxes=boxes, labels=labels, scores=scores)
    if masks:
        pasted = [
            paste_masks(mask[None], box[None], *sample.ori_shape)[0] >= mask_threshold
            for mask, box in zip(masks[0], boxes)
        ]
        instances.masks = (
            torch.stack(pasted) if pasted else torch.zeros(0, *sample.ori_shape, dtype=torch.bool)
        )
    return instances

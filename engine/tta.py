"""Test-time augmentation by flipping, for configs that bring none of their own."""

from __future__ import annotations

from copy import deepcopy

from mmdet.models.test_time_augs import DetTTAModel
from mmengine.config import Config, ConfigDict

from ..registry import MODELS
from .errors import UserError


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """MMDetection's TTA for detectors with masks: it merges boxes, and refuses to see masks."""

    def merge_preds(self, data_samples_list: list) -> list:
        for data_samples in data_samples_list:
            for data_sample in data_samples:
                data_sample.pred_instances.pop('masks', None)
        return super().merge_preds(data_samples_list)


TTA_MODELS = {
    'mmpretrain': dict(type='AverageClsScoreTTA'),
    'mmdet': dict(
        type='mmdense.BoxTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    'mmseg': dict(type='SegTTAModel'),
}


def enable_tta(cfg: Config) -> None:
    """Wrap model and test pipeline: the config's own TTA, or else the image and its mirror image.

    MMDetection merges boxes only, so a detector is then evaluated on boxes alone.

    Raises:
        UserError: When the config belongs to none of the three toolboxes.
    """
    scope = cfg.get('default_scope')
    if scope not in TTA_MODELS:
        raise UserError(f"--tta: default_scope '{scope}' is none of {', '.join(TTA_MODELS)}")
    cfg.setdefault('tta_model', ConfigDict(TTA_MODELS[scope]))
    if 'tta_pipeline' not in cfg:
        *load, pack = deepcopy(cfg.test_dataloader.dataset.pipeline)
        if scope == 'mmdet':
            keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
            pack['meta_keys'] = (*pack.get('meta_keys', keys), 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        cfg.tta_pipeline = [*load, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if scope == 'mmdet':
        cfg.test_evaluator.metric = 'bbox'

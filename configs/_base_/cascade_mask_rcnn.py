"""Cascade Mask R-CNN on COCO: model, multi-scale data, AdamW, 12 epochs."""

_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    'coco_multiscale.py',
    'adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

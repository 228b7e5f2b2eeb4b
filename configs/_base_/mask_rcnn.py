"""Mask R-CNN on COCO with a pyramid of four maps: model, multi-scale data, AdamW, 12 epochs."""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'coco_multiscale.py',
    'adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

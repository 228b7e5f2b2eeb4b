"""Cascade Mask R-CNN on COCO: model and multi-scale data. The schedule is adamw_1x.py."""

_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    'coco_multiscale.py',
    'mmdet::_base_/default_runtime.py',
]

# In place of the toolbox's ResNet: a config names the backbone and its checkpoint.
model = dict(backbone=dict(_delete_=True, init_cfg=dict(type='Pretrained', prefix='backbone.')))

"""Mask R-CNN, FCViT-b12, COCO: what the schedules share."""

_base_ = '../../_base_/mask_rcnn.py'
model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(checkpoint='mmdense://fcvit_b12_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

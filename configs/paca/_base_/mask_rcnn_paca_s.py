"""Mask R-CNN, PaCa-ViT small, COCO: what the schedules share."""

_base_ = '../../_base_/mask_rcnn.py'
model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='mmdense://paca_s_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

"""Mask R-CNN, GroupMixFormer-S, COCO: what the schedules share."""

_base_ = '../../_base_/mask_rcnn.py'
model = dict(
    backbone=dict(
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_s_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 320, 320]),
)

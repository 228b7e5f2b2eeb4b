"""Mask R-CNN, SimpleViT-S with mean-shift attention and a feature pyramid, COCO: what the schedules share."""

_base_ = '../../_base_/mask_rcnn.py'
model = dict(
    backbone=dict(
        type='mmdense.MSFViT',
        arch='small',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(checkpoint='mmdense://msf_s_in1k'),
    ),
    neck=[
        dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='BN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ],
)

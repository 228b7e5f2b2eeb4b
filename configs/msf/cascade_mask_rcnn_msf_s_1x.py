"""Cascade Mask R-CNN, SimpleViT-S with mean-shift attention and a feature pyramid, COCO 1x.
bash tools/dist_train.sh configs/msf/cascade_mask_rcnn_msf_s_1x.py 8"""

_base_ = ['../_base_/cascade_mask_rcnn.py', '../_base_/adamw_1x.py']
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

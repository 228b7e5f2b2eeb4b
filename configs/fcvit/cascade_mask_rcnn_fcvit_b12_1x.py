"""Cascade Mask R-CNN, FCViT-b12, COCO 1x.
bash tools/dist_train.sh configs/fcvit/cascade_mask_rcnn_fcvit_b12_1x.py 8"""

_base_ = ['../_base_/cascade_mask_rcnn.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(checkpoint='mmdense://fcvit_b12_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

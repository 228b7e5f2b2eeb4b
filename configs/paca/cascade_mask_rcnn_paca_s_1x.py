"""Cascade Mask R-CNN, PaCa-ViT small with convolutional clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/cascade_mask_rcnn_paca_s_1x.py 8"""

_base_ = ['../_base_/cascade_mask_rcnn.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='mmdense://paca_s_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

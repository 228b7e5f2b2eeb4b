"""Mask R-CNN, PaCa-ViT base with convolutional clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_b_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='mmdense://paca_b_in1k')),
    neck=dict(in_channels=[96, 192, 384, 512]),
)

"""Cascade Mask R-CNN, ViT-S/16 with DINOv3's weights and a feature pyramid, COCO 1x.
bash tools/dist_train.sh configs/timm/cascade_mask_rcnn_vit_s_dinov3_1x.py 8"""

_base_ = ['../_base_/cascade_mask_rcnn.py', '../_base_/adamw_1x.py', '_base_/vit_s_dinov3.py']
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels),
)

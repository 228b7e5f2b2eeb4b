"""Semantic FPN, ConvNeXt-T with DINOv3's weights, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/timm/sem_fpn_convnext_t_dinov3_40k.py 8"""

_base_ = ['../_base_/sem_fpn.py', '_base_/convnext_t_dinov3.py']
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels),
)

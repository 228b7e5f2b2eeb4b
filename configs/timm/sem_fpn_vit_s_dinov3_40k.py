"""Semantic FPN, ViT-S/16 with DINOv3's weights and a feature pyramid, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/timm/sem_fpn_vit_s_dinov3_40k.py 8"""

_base_ = ['../_base_/sem_fpn.py', '_base_/vit_s_dinov3.py']
model = dict(
    backbone=dict(_base_.backbone, norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=_base_.channels),
)

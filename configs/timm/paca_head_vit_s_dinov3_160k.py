"""The PaCa head, ViT-S/16 with DINOv3's weights and a feature pyramid, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/timm/paca_head_vit_s_dinov3_160k.py 8"""

_base_ = ['../_base_/paca_head.py', '_base_/vit_s_dinov3.py']
model = dict(
    backbone=dict(_base_.backbone, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=_base_.channels),
)

"""Semantic FPN, ViT-S/16 with DINOv3's weights and a feature pyramid, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/timm/sem_fpn_vit_s_dinov3_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.Timm',
        model_name='vit_small_patch16_dinov3.lvd1689m',
        pretrained=True,
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=None,
    ),
    neck=dict(in_channels=[384] * 4),
)

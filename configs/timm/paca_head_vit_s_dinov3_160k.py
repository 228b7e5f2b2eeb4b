"""The PaCa head, ViT-S/16 with DINOv3's weights and a feature pyramid, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/timm/paca_head_vit_s_dinov3_160k.py 8"""

_base_ = '../_base_/paca_head.py'
model = dict(
    backbone=dict(
        type='mmdense.Timm',
        model_name='vit_small_patch16_dinov3.lvd1689m',
        pretrained=True,
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=None,
    ),
    decode_head=dict(in_channels=[384] * 4),
)

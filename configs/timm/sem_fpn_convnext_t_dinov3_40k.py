"""Semantic FPN, ConvNeXt-T with DINOv3's weights, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/timm/sem_fpn_convnext_t_dinov3_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.Timm',
        model_name='convnext_tiny.dinov3_lvd1689m',
        pretrained=True,
        drop_path_rate=0.1,
        init_cfg=None,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

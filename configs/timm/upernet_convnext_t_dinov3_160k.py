"""UperNet, ConvNeXt-T with DINOv3's weights, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/timm/upernet_convnext_t_dinov3_160k.py 8"""

_base_ = '../_base_/upernet.py'
model = dict(
    backbone=dict(
        type='mmdense.Timm',
        model_name='convnext_tiny.dinov3_lvd1689m',
        pretrained=True,
        drop_path_rate=0.1,
        init_cfg=None,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

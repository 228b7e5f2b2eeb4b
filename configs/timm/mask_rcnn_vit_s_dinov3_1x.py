"""Mask R-CNN, ViT-S/16 with DINOv3's weights and a feature pyramid, COCO 1x.
bash tools/dist_train.sh configs/timm/mask_rcnn_vit_s_dinov3_1x.py 8"""

_base_ = ['../_base_/mask_rcnn.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.Timm',
        model_name='vit_small_patch16_dinov3.lvd1689m',
        pretrained=True,
        drop_path_rate=0.1,
        init_cfg=None,
    ),
    neck=dict(in_channels=[384] * 4),
)

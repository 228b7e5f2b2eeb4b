"""Cascade Mask R-CNN, ConvNeXt-T with DINOv3's weights, COCO 1x.
bash tools/dist_train.sh configs/timm/cascade_mask_rcnn_convnext_t_dinov3_1x.py 8"""

_base_ = ['../_base_/cascade_mask_rcnn.py', '../_base_/adamw_1x.py']
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

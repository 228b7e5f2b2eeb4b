"""Mask R-CNN, PaCa-ViT base with convolutional clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_b_1x.py 8

Parameters: 66.61 M; 357.6 GMACs at 800 x 1280. Published (paper, COCO table): 66.6 M, 373 GFLOPs at
800 x 1280, box AP 48.0 (AP50 69.7, AP75 52.1), mask AP 42.9 (AP50 66.6, AP75 45.6).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='base',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 512]),
)

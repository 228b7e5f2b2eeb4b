"""Mask R-CNN, PaCa-ViT small with convolutional clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_1x.py 8

Parameters: 41.81 M; 280.8 GMACs at 800 x 1280. Published (paper, COCO table): 41.8 M, 296 GFLOPs at
800 x 1280, box AP 46.4 (AP50 68.7, AP75 50.9), mask AP 41.8 (AP50 65.5, AP75 45.0).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

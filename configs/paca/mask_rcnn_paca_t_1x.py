"""Mask R-CNN, PaCa-ViT tiny with convolutional clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_t_1x.py 8

Parameters: 31.97 M; 236.0 GMACs at 800 x 1280. Published (paper, COCO table): 32.0 M, 252 GFLOPs at
800 x 1280, box AP 43.3 (AP50 66.0, AP75 47.5), mask AP 39.6 (AP50 62.9, AP75 42.4).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_t_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

"""Mask R-CNN, PaCa-ViT small with 2, 2, 2, 0 clusters per stage, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_2_0_1x.py 8

Parameters: 41.75 M; 267.6 GMACs at 800 x 1280. Published (paper, COCO table): 41.6 M, 283 GFLOPs at
800 x 1280, box AP 45.5 (AP50 68.4, AP75 49.9), mask AP 41.1 (AP50 64.9, AP75 43.9).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(2, 2, 2, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_2_0_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

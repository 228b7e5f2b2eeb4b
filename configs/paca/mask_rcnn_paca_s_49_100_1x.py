"""Mask R-CNN, PaCa-ViT small with 49, 64, 81, 100 clusters per stage, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_49_100_1x.py 8

Parameters: 42.00 M; 273.2 GMACs at 800 x 1280. Published (paper, COCO table): 42.0 M, 289 GFLOPs at
800 x 1280, box AP 46.1 (AP50 68.7, AP75 50.4), mask AP 41.5 (AP50 65.3, AP75 44.3).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(49, 64, 81, 100),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_49_100_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

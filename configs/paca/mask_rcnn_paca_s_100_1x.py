"""Mask R-CNN, PaCa-ViT small with 100 clusters in every stage, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_100_1x.py 8

Parameters: 42.02 M; 278.2 GMACs at 800 x 1280. Published (paper, COCO table): 42.0 M, 294 GFLOPs at
800 x 1280, box AP 46.4 (AP50 68.8, AP75 51.0), mask AP 41.8 (AP50 65.6, AP75 44.6).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(100, 100, 100, 100),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_100_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

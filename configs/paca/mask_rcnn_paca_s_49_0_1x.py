"""Mask R-CNN, PaCa-ViT small with 49, 49, 49, 0 clusters per stage, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_49_0_1x.py 8

Parameters: 41.78 M; 273.9 GMACs at 800 x 1280. Published (paper, COCO table): 41.8 M, 289 GFLOPs at
800 x 1280, box AP 46.2 (AP50 68.6, AP75 50.6), mask AP 41.6 (AP50 65.4, AP75 44.3).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(49, 49, 49, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_49_0_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

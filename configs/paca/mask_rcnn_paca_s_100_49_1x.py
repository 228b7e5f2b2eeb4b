"""Mask R-CNN, PaCa-ViT small with 100, 81, 64, 49 clusters per stage, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_100_49_1x.py 8

Parameters: 41.98 M; 275.9 GMACs at 800 x 1280. Published (paper, COCO table): 42.0 M, 291 GFLOPs at
800 x 1280, box AP 46.1 (AP50 68.4, AP75 50.3), mask AP 41.7 (AP50 65.4, AP75 44.7).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(100, 81, 64, 49),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_100_49_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

"""Mask R-CNN, PaCa-ViT base with clusters from a teacher, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_b_teacher_1x.py 8

Parameters: 67.35 M; 357.6 GMACs at 800 x 1280. Published (paper, COCO table): 61.4 M, 372 GFLOPs at
800 x 1280, box AP 48.3 (AP50 70.5, AP75 52.6), mask AP 43.3 (AP50 67.2, AP75 46.6).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='base_teacher',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_teacher_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 512]),
)

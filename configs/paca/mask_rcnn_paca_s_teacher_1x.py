"""Mask R-CNN, PaCa-ViT small with clusters from a teacher, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_teacher_1x.py 8

Parameters: 40.85 M; 277.7 GMACs at 800 x 1280. Published (paper, COCO table): 40.9 M, 292 GFLOPs at
800 x 1280, box AP 45.8 (AP50 68.0, AP75 50.3), mask AP 41.4 (AP50 64.9, AP75 44.5).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small_teacher',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_teacher_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

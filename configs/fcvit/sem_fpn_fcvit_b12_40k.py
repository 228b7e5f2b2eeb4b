"""Semantic FPN, FCViT-b12, ADE20K, 40k iterations.

    bash tools/dist_train.sh configs/fcvit/sem_fpn_fcvit_b12_40k.py 8

Parameters: 18.46 M; 35.3 GMACs at 512 x 512. Published (the authors' repository): mIoU 43.3 (single
scale).
"""

_base_ = '../_base_/sem_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/fcvit_b12_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

"""Semantic FPN, FCViT-b12, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/fcvit/sem_fpn_fcvit_b12_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(checkpoint='mmdense://fcvit_b12_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

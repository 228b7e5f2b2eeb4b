"""Semantic FPN, FCViT-b24, ADE20K, 40k iterations.

    bash tools/dist_train.sh configs/fcvit/sem_fpn_fcvit_b24_40k.py 8

Parameters: 30.71 M; 47.9 GMACs at 512 x 512. Published (the authors' repository): mIoU 45.5 (single
scale).
"""

_base_ = 'sem_fpn_fcvit_b12_40k.py'

model = dict(
    backbone=dict(arch='b24', init_cfg=dict(checkpoint='checkpoints/fcvit_b24_in1k.pth')),
)

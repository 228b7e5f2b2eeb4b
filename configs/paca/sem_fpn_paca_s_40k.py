"""Semantic FPN, PaCa-ViT small with convolutional clustering, ADE20K, 40k iterations.

    bash tools/dist_train.sh configs/paca/sem_fpn_paca_s_40k.py 8

Parameters: 25.97 M; 53.1 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/sem_fpn.py.
"""

_base_ = '../_base_/sem_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(200, 200, 200, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

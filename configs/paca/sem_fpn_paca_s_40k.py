"""Semantic FPN, PaCa-ViT small with convolutional clustering, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/paca/sem_fpn_paca_s_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        clusters=(200, 200, 200, 0),
        init_cfg=dict(checkpoint='mmdense://paca_s_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

"""The PaCa head, FCViT-b12, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/fcvit/paca_head_fcvit_b12_160k.py 8

Parameters: 15.65 M; 29.1 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/paca_head.py.
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/fcvit_b12_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], in_index=[0, 1, 2, 3]),
)

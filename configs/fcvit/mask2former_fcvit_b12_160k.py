"""Mask2Former, FCViT-b12, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/fcvit/mask2former_fcvit_b12_160k.py 8

Parameters: 34.00 M; 57.3 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/mask2former.py.
"""

_base_ = '../_base_/mask2former.py'

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
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)

"""Mask2Former, PaCa-ViT small with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/mask2former_paca_s_160k.py 8

Parameters: 41.52 M; 75.2 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/mask2former.py.
"""

_base_ = '../_base_/mask2former.py'

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
    decode_head=dict(in_channels=[96, 192, 320, 384]),
)

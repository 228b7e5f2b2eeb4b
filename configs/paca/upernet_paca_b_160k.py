"""UperNet, PaCa-ViT base with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/upernet_paca_b_160k.py 8

Parameters: 77.18 M. Published (paper, ADE20K table): 264.1 GFLOPs at 512 x 512,
mIoU 49.67 (single scale).
"""

_base_ = '_base_/upernet_paca.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
    auxiliary_head=dict(in_channels=384),
)

"""UperNet, PaCa-ViT base with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/upernet_paca_b_160k.py 8

Parameters: 77.18 M; 263.8 GMACs at 512 x 512. Published (paper, ADE20K table): 77.2 M, 264.1 GFLOPs
at 512 x 512, mIoU 49.67 (single scale).
"""

_base_ = '../_base_/upernet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='base',
        clusters=(200, 200, 200, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
    auxiliary_head=dict(in_channels=384),
)

"""The PaCa head, PaCa-ViT base with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_b_160k.py 8

Parameters: 47.96 M; 68.2 GMACs at 512 x 512. Published (paper, ADE20K table): 48.0 M, 68.5 GFLOPs
at 512 x 512, mIoU 50.39 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='base',
        clusters=(200, 200, 200, 0),
        drop_path_rate=0.5,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 512], in_index=[0, 1, 2, 3]),
)

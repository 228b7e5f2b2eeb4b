"""The PaCa head, PaCa-ViT small with 100 clusters in every stage, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_s_100_160k.py 8

Parameters: 23.41 M; 47.0 GMACs at 512 x 512. Published (paper, ADE20K table): 23.4 M, 47.3 GFLOPs
at 512 x 512, mIoU 48.3 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(200, 200, 200, 200),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_100_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384], in_index=[0, 1, 2, 3]),
)

"""The PaCa head, PaCa-ViT small with 100 clusters in every block, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_s_blockwise_160k.py 8

Parameters: 25.78 M; 50.6 GMACs at 512 x 512. Published (paper, ADE20K table): 25.8 M, 50.9 GFLOPs
at 512 x 512, mIoU 48.0 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(200, 200, 200, 200),
        clustering_interval=1,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/paca_s_blockwise_in1k.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384], in_index=[0, 1, 2, 3]),
)

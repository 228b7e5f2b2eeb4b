"""The PaCa head, PaCa-ViT tiny with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_t_160k.py 8

Parameters: 13.33 M; 34.1 GMACs at 512 x 512. Published (paper, ADE20K table): 13.3 M, 34.4 GFLOPs
at 512 x 512, mIoU 45.65 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='tiny',
        clusters=(200, 200, 200, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_t_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384], in_index=[0, 1, 2, 3]),
)

"""UperNet, PaCa-ViT small with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/upernet_paca_s_160k.py 8

Parameters: 51.40 M; 242.4 GMACs at 512 x 512. Published (paper, ADE20K table): 51.4 M, 242.7 GFLOPs
at 512 x 512, mIoU 47.6 (single scale).
"""

_base_ = '../_base_/upernet.py'

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
    auxiliary_head=dict(in_channels=320),
)

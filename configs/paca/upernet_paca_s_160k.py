"""UperNet, PaCa-ViT small with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/upernet_paca_s_160k.py 8

Parameters: 51.40 M. Published (paper, ADE20K table): 242.7 GFLOPs at 512 x 512,
mIoU 47.6 (single scale).
"""

_base_ = '_base_/upernet_paca.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_in1k.pth', prefix='backbone.'
        ),
    ),
)

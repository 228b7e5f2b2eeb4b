"""UperNet, PaCa-ViT tiny with convolutional clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/upernet_paca_t_160k.py 8

Parameters: 41.56 M. Published (paper, ADE20K table): 229.9 GFLOPs at 512 x 512,
mIoU 44.49 (single scale).
"""

_base_ = '_base_/upernet_paca.py'

model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_t_in1k.pth', prefix='backbone.'
        ),
    ),
)

"""Mask R-CNN, PaCa-ViT small with MLP clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_mlp_1x.py 8

Parameters: 42.41 M; 288.2 GMACs at 800 x 1280. Published (paper, COCO table): 42.4 M, 303 GFLOPs at
800 x 1280, box AP 46.6 (AP50 69.0, AP75 51.3), mask AP 41.9 (AP50 65.7, AP75 45.0).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clustering='mlp',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_mlp_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

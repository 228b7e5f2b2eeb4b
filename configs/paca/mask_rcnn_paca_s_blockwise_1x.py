"""Mask R-CNN, PaCa-ViT small with 100 clusters in every block, COCO 1x.

    bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_blockwise_1x.py 8

Parameters: 43.97 M; 289.1 GMACs at 800 x 1280. Published (paper, COCO table): 44.0 M, 304 GFLOPs at
800 x 1280, box AP 46.5 (AP50 68.7, AP75 51.0), mask AP 41.8 (AP50 65.6, AP75 45.0).
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        clusters=(100, 100, 100, 100),
        clustering_interval=1,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/paca_s_blockwise_in1k.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

"""Cascade Mask R-CNN, PaCa-ViT small with convolutional clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/cascade_mask_rcnn_paca_s_1x.py 8

Parameters: 74.74 M; 414.4 GMACs at 800 x 1280. No published run; the recipe is that of
configs/_base_/cascade_mask_rcnn.py.
"""

_base_ = '../_base_/cascade_mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

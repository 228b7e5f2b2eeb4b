"""Cascade Mask R-CNN, FCViT-b12, COCO 1x.

    bash tools/dist_train.sh configs/fcvit/cascade_mask_rcnn_fcvit_b12_1x.py 8

Parameters: 67.29 M; 357.6 GMACs at 800 x 1280. No published run; the recipe is that of
configs/_base_/cascade_mask_rcnn.py.
"""

_base_ = '../_base_/cascade_mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/fcvit_b12_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

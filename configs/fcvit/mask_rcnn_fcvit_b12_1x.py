"""Mask R-CNN, FCViT-b12, COCO 1x.

    bash tools/dist_train.sh configs/fcvit/mask_rcnn_fcvit_b12_1x.py 8

Parameters: 34.36 M; 224.0 GMACs at 800 x 1280. Published (the authors' repository): 33.7 M, box AP
42.3 (AP50 64.2, AP75 46.2), mask AP 38.6 (AP50 61.1, AP75 41.3).
"""

_base_ = '../_base_/mask_rcnn.py'

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

# The published run: images at one scale, and its own optimizer settings.
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4), paramwise_cfg=dict(_delete_=True))

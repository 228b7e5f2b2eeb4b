"""Mask R-CNN, FCViT-b12, COCO 1x.
bash tools/dist_train.sh configs/fcvit/mask_rcnn_fcvit_b12_1x.py 8"""

_base_ = ['_base_/mask_rcnn_fcvit_b12.py', '../_base_/adamw_1x.py']

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

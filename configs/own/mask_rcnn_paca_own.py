"""Mask R-CNN with slim heads for data of your own, from scratch: small enough for a CPU.

    python tools/train.py --data FOLDER --model mask_rcnn_paca_own

Published: nothing, the data are yours.
"""

_base_ = '../digits/mask_rcnn_paca_digits.py'

scale = (320, 320)
model = dict(
    backbone=dict(init_cfg=None),
    neck=dict(num_outs=5),
    rpn_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64])),
    # Unlike digits, classes may differ in shape.
    roi_head=dict(bbox_head=dict(reg_class_agnostic=False), mask_head=dict(class_agnostic=False)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=scale),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

"""Semantic FPN for masks of your own, from scratch: small enough for a CPU.

    python tools/train.py --data FOLDER --model sem_fpn_paca_own

Published: nothing, the data are yours.
"""

_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../digits/_base_/segmentation_runtime.py',
    '../digits/_base_/schedule.py',
    '../digits/_base_/segmentation.py',
    '../digits/_base_/paca.py',
]

channels = 64
size = (256, 256)
model = dict(
    data_preprocessor=dict(size=size),
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=_base_.embed_dims, out_channels=channels),
    decode_head=dict(in_channels=[channels] * 4, channels=channels, num_classes=11),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize', scale=(2 * size[0], size[1]), ratio_range=(0.8, 1.5), keep_ratio=True
    ),
    dict(type='RandomCrop', crop_size=size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2 * size[0], size[1]), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20))

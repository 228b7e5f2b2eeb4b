"""The study's segmentors: UperNet with slim heads on the digit scenes, from scratch.

    BACKBONE=fcvit python tools/train.py configs/study/segmentor.py

BACKBONE is a file of _base_, by default paca. Measured: docs/study.md.
"""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    '../digits/_base_/segmentation_runtime.py',
    '../digits/_base_/schedule.py',
    '../digits/_base_/segmentation.py',
    '_base_/{{$BACKBONE:paca}}.py',
]
class_weight = [0.15] + 10 * [1.0]  # most pixels are background
# What the heads of segmentor_*.py share.
head = dict(
    channels=32,
    num_classes=11,
    norm_cfg=dict(type='BN'),
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', class_weight=class_weight),
)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.network),
    neck=_base_.pyramid or None,
    decode_head=dict(
        in_channels=_base_.widths,
        channels=32,
        num_classes=11,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25))))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]

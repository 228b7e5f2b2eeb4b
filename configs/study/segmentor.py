"""The study's segmentors: upernet_paca_digits.py with another network, from scratch.

    BACKBONE=fcvit python tools/train.py configs/study/segmentor.py

BACKBONE is a file of _base_, by default paca. Measured: docs/study.md.
"""

_base_ = ['../digits/upernet_paca_digits.py', '_base_/{{$BACKBONE:paca}}.py']
class_weight = [0.15] + 10 * [1.0]  # sooner off the background than in the demo
# What the heads of segmentor_*.py share.
head = dict(
    channels=32,
    num_classes=11,
    norm_cfg=dict(type='BN'),
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', class_weight=class_weight),
)
model = dict(
    backbone=dict(_delete_=True, **_base_.network),
    neck=_base_.pyramid or None,
    decode_head=dict(
        in_channels=_base_.widths, channels=32, loss_decode=dict(class_weight=class_weight)
    ),
    auxiliary_head=None,
)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]

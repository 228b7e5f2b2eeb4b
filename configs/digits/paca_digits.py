"""Pretraining on the digits: a small PaCa-ViT classifier for the demo.

python tools/train.py configs/digits/paca_digits.py
"""

_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '_base_/schedule.py',
    '_base_/classification.py',
    '_base_/paca.py',
]
model = dict(
    type='ImageClassifier',
    backbone=dict(**_base_.backbone, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=_base_.embed_dims[-1],
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=1,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=32)

"""Classification on ImageNet-1K: model, AdamW with 1e-3 for a batch of 1024, 300 epochs.

Mixup 0.8, cutmix 1.0, label smoothing 0.1; weight decay 0.05, none on norms and biases. The data and
the learning rate's course are each family's own.
"""

_base_ = [
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

"""The study's classifiers: paca_digits.py with another network, in fewer and smaller steps.

    BACKBONE=fcvit python tools/train.py configs/study/classifier.py

BACKBONE is a file of _base_, by default paca. Measured: docs/study.md.
"""

_base_ = ['../digits/paca_digits.py', '_base_/{{$BACKBONE:paca}}.py']
model = dict(
    backbone=dict(_delete_=True, **{**_base_.network, **_base_.classifier}),
    head=dict(in_channels=_base_.widths[-1]),
)
max_epochs = 2
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)

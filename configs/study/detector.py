"""The study's detectors: mask_rcnn_paca_digits.py with another network, from scratch.

    BACKBONE=fcvit python tools/train.py configs/study/detector.py

BACKBONE is a file of _base_, by default paca. Measured: docs/study.md.
"""

_base_ = ['../digits/mask_rcnn_paca_digits.py', '_base_/{{$BACKBONE:paca}}.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.network),
    neck=[
        *_base_.pyramid,
        dict(type='FPN', in_channels=_base_.widths, out_channels=64, num_outs=4),
    ],
)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
max_epochs = 1
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=25),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]

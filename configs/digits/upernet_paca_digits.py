"""UperNet with slim heads on the digit scenes, fine-tuned from paca_digits.py.

    python tools/train.py configs/digits/upernet_paca_digits.py

Published: nothing, the data set is this project's own.
"""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    '_base_/segmentation_runtime.py',
    '_base_/schedule.py',
    '_base_/segmentation.py',
    '_base_/paca.py',
]

channels = 64
class_weight = [0.4] + 10 * [1.0]  # most pixels are background
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        in_channels=_base_.embed_dims,
        channels=channels,
        num_classes=11,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=dict(
        in_channels=_base_.embed_dims[2],
        channels=channels,
        num_classes=11,
        loss_decode=dict(class_weight=class_weight),
    ),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25)))
)
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]

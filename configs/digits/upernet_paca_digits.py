"""UperNet with slim heads on the digit scenes, fine-tuned from paca_digits.py.

python tools/train.py configs/digits/upernet_paca_digits.py
"""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    '_base_/segmentation_runtime.py',
    '_base_/schedule.py',
    '_base_/segmentation.py',
    '_base_/paca.py',
]
crop_size = (112, 112)
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        in_channels=_base_.embed_dims,
        channels=48,
        num_classes=11,
        # Most pixels are background: they weigh less in one loss, and the other is of digits alone.
        loss_decode=[
            dict(type='CrossEntropyLoss', class_weight=[0.4] + 10 * [1.0]),
            dict(
                type='DiceLoss', use_sigmoid=False, naive_dice=True, ignore_index=0, loss_weight=2
            ),
        ],
    ),
    auxiliary_head=None,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomRotate', prob=0.5, degree=15, seg_pad_val=255),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=3e-3), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25)))
)
max_epochs = 7
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, end=max_epochs, convert_to_iter_based=True),
]

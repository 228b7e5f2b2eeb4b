"""MSF (SimpleViT-S) on ImageNet-1K: the recipe that every variant shares.

Batch 1024 (the authors: 4 GPUs x 256), AdamW with a learning rate of 1e-3 and weight decay 0.05, on
norms and biases too, 100 epochs of cosine decay after 10 of warm-up, gradients clipped at 1.
DeiT-III's augmentation: each image is made gray, solarized or blurred, then its colors are jittered
by 0.3, and it comes three times; mixup 0.2, cutmix 0.2, label smoothing 0.1.
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_deit3_224.py', '../../_base_/imagenet.py']
model = dict(
    backbone=dict(type='mmdense.MSFViT', arch='small', out_type='avg_featmap'),
    neck=None,
    head=dict(in_channels=384),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=0.2)]),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(  # ITU-R 601 luma of BGR
                    type='RandomGrayscale',
                    prob=1.0,
                    keep_channels=True,
                    channel_weights=(0.114, 0.587, 0.299),
                )
            ],
            [dict(type='Solarize', thr=128, prob=1.0)],
            [dict(type='GaussianBlur', magnitude_range=(0.1, 2), magnitude_std='inf', prob=1.0)],
        ],
    ),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='RepeatAugSampler', shuffle=True, num_repeats=3),
    dataset=dict(pipeline=train_pipeline),
)
optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=1.0, bias_decay_mult=1.0, flat_decay_mult=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.033, by_epoch=True, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, end=100),
]
train_cfg = dict(max_epochs=100)

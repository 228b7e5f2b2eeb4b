"""The PaCa head on ADE20K: 512 x 512 crops, batch 16 (8 GPUs x 2), AdamW, 160k iterations.

The head learns 10 times as fast as the backbone, and so do the last cluster layers of PaCa-ViT's
blocks (not a teacher's, as published).
"""

_base_ = ['mmseg::_base_/datasets/ade20k.py', 'adamw_160k.py', 'mmseg::_base_/default_runtime.py']
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(init_cfg=dict(type='Pretrained', prefix='backbone.')),
    decode_head=dict(
        type='mmdense.PaCaSegHead',
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'clustering.assign': dict(lr_mult=10.0), 'decode_head': dict(lr_mult=10.0)}
    )
)

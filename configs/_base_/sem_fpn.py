"""Semantic FPN on ADE20K: 512 x 512 crops, batch 32 (8 GPUs x 4), AdamW 2e-4, 40k iterations."""

_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/schedules/schedule_40k.py',
    'mmseg::_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    # In place of the toolbox's ResNet: a config names the backbone and its checkpoint.
    pretrained=None,
    backbone=dict(_delete_=True, init_cfg=dict(type='Pretrained', prefix='backbone.')),
    decode_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=40000, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=32)

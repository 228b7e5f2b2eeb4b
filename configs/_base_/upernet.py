"""UperNet on ADE20K: model, 512 x 512 crops, batch 16 (8 GPUs x 2), AdamW, 160k iterations."""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    # In place of the toolbox's ResNet: a config names the backbone and its checkpoint.
    pretrained=None,
    backbone=dict(_delete_=True, init_cfg=dict(type='Pretrained', prefix='backbone.')),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=2)

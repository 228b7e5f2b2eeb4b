"""Toy, ImageNet-1K.
bash tools/dist_train.sh configs/toy/toy_n_in1k.py 8"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py', '../_base_/imagenet.py']
model = dict(
    backbone=dict(type='mmdense.Toy', arch='nano', out_indices=(3,)), head=dict(in_channels=32)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=300),
]

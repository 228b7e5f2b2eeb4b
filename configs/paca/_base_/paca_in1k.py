"""PaCa-ViT on ImageNet-1K: the recipe that every size shares.

Batch 1024 (8 GPUs x 128), AdamW with a learning rate of 5e-4 per 512 images and weight decay 0.05,
300 epochs of cosine decay to 1e-5 after 5 of warm-up, RandAugment, random erasing, mixup 0.8,
cutmix 1.0, label smoothing 0.1. Tested on a crop of 0.9 of the shorter side. (With RandAugment, timm
leaves the recipe's color jitter out.)
"""

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs128_poolformer_small_224.py',
    '../../_base_/imagenet.py',
]
model = dict(
    backbone=dict(type='mmdense.PaCaViT', drop_path_rate=0.1, out_indices=(3,)),
    head=dict(in_channels=384),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=300),
]

"""GroupMixFormer on ImageNet-1K: the recipe that every size shares.

Batch 512 (8 GPUs x 64), AdamW with a learning rate of 5e-4 per 512 images and weight decay 0.05,
300 epochs of cosine decay to 5e-6 after 20 of warm-up from 5e-7, gradients clipped at 5,
RandAugment, random erasing, mixup 0.8, cutmix 1.0, label smoothing 0.1.
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py', '../../_base_/imagenet.py']
model = dict(backbone=dict(type='mmdense.GroupMixFormer', final_norm=True, out_indices=(3,)))
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=5e-6, by_epoch=True, begin=20, end=300),
]
sync_bn = 'torch'
auto_scale_lr = dict(base_batch_size=512)

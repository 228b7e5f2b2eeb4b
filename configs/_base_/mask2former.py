"""Mask2Former on ADE20K: MMSegmentation's recipe for ResNet-50 (batch 16, AdamW 1e-4, 160k iterations).

As there, the backbone learns a tenth as fast, all of its parameters with weight decay 0.05.
"""

_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'

# In place of the toolbox's ResNet: a config names the backbone and its checkpoint.
model = dict(backbone=dict(_delete_=True, init_cfg=dict(type='Pretrained', prefix='backbone.')))
auto_scale_lr = dict(enable=False, base_batch_size=16)

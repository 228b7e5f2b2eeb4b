"""Mask2Former on ADE20K: MMSegmentation's recipe (batch 16, AdamW 1e-4, 160k iterations)."""

_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'

auto_scale_lr = dict(enable=False, base_batch_size=16)

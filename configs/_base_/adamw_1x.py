"""12 epochs of AdamW 1e-4 with a batch of 16; weight decay 0.05, none on
parameters with `norm` in their name, as the authors of PaCa-ViT have it."""

_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
)

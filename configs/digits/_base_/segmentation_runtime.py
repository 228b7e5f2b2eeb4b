"""MMSegmentation's runtime, counted in epochs, for the digit scenes and data of your own."""

_base_ = 'mmseg::_base_/default_runtime.py'

log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=8)

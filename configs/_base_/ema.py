"""Average the weights while training; the average is evaluated and saved as the model's weights."""

custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=2e-4)]

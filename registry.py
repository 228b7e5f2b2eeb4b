"""The registries of scope ``mmdense``.

Each is a child of mmengine's root, so ``type='mmdense.PaCaViT'`` builds inside mmpretrain, mmdet
and mmseg alike; ``locations`` are imported when a name is first looked up.
"""

from mmengine import registry as mmengine
from mmengine.registry import Registry


def _registry(parent: Registry, *locations: str) -> Registry:
    locations = [f'mmdense.{location}' for location in locations]
    return Registry(parent.name, parent=parent, scope='mmdense', locations=locations)


MODELS = _registry(mmengine.MODELS, 'backbones', 'heads', 'engine.testing', 'inference.tiles')
WEIGHT_INITIALIZERS = _registry(mmengine.WEIGHT_INITIALIZERS, 'serialization.loading')
HOOKS = _registry(
    mmengine.HOOKS,
    'engine.hooks',
    'engine.interrupts',
    'engine.numerics',
    'engine.optim',
    'engine.progress',
    'engine.resuming',
    'engine.saving',
    'engine.sharding',
    'inference.optimize',
)
MODEL_WRAPPERS = _registry(mmengine.MODEL_WRAPPERS, 'engine.sharding')
METRICS = _registry(
    mmengine.METRICS, 'reporting.classifier', 'reporting.detector', 'reporting.segmentor'
)
LOOPS = _registry(mmengine.LOOPS, 'engine.loops')
OPTIM_WRAPPERS = _registry(mmengine.OPTIM_WRAPPERS, 'engine.amp')
OPTIM_WRAPPER_CONSTRUCTORS = _registry(mmengine.OPTIM_WRAPPER_CONSTRUCTORS, 'engine.optim')

"""The registries of scope ``mmdense``.

Each is a child of mmengine's root, so ``type='mmdense.PaCaViT'`` builds inside mmpretrain, mmdet
and mmseg alike; ``locations`` are imported when a name is first looked up.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmdense',
    locations=['mmdense.backbones', 'mmdense.heads'],
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmdense', locations=['mmdense.engine.hooks'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmdense',
    locations=['mmdense.engine.amp'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optim_wrapper_constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmdense',
    locations=['mmdense.engine.optim'],
)

"""The toolboxes' lists of models, which find this package's by the names of its configs.

``DetInferencer('mask_rcnn_paca_s_1x')``, ``MMSegInferencer('upernet_paca_s_160k')`` and, of
MMPretrain, ``get_model('paca_s_in1k', pretrained=True)`` take the config and the published weights
of that name.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from mmengine.config import Config
from mmengine.infer import BaseInferencer

from ..files import config_root
from .published import SCHEME, read_table

MMPRETRAIN_HUB = 'mmpretrain.apis.model'


def install() -> None:
    """Let the lists find the names; again changes nothing."""
    if hasattr(BaseInferencer._load_model_from_metafile, '__wrapped__'):
        return
    BaseInferencer._load_model_from_metafile = _knowing_names(
        BaseInferencer._load_model_from_metafile
    )
    if MMPRETRAIN_HUB in sys.modules:
        extend_mmpretrain(sys.modules[MMPRETRAIN_HUB])
    else:
        sys.meta_path.insert(0, WhenImported(MMPRETRAIN_HUB, extend_mmpretrain))


def _knowing_names(load: Callable) -> Callable:
    """mmengine's look into the metafiles of one toolbox, after one at the names here."""

    @functools.wraps(load)
    def load_by_name(self: BaseInferencer, model: str) -> tuple[Config, str]:
        row = read_table().get(model.lower())
        if row is None:
            return load(self, model)
        config = Config.fromfile(config_root() / row.family / f'{row.name}.py')
        return config, f'{SCHEME}{row.name}'

    return load_by_name


def extend_mmpretrain(module: ModuleType) -> None:
    """Put the classifiers into MMPretrain's hub when it reads its own list."""
    hub = module.ModelHub
    read_own = hub._register_mmpretrain_models

    def read_all() -> None:
        read_own()
        if any(name in hub._models_dict for name in read_table()):
            return
        root = config_root().parent
        hub.register_model_index(root / 'model-index.yml', config_prefix=root)
        for name in read_table():
            if name.endswith('_in1k'):
                hub._models_dict[name].weights = f'{SCHEME}{name}'
            else:
                hub._models_dict.pop(name, None)

    hub._register_mmpretrain_models = staticmethod(read_all)


class WhenImported(MetaPathFinder):
    """Calls a function with a module, once, as soon as something has imported it."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.then = then
        self.looking = False

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """The module's own spec, whose loader calls the function at its end."""
        if fullname != self.name or self.looking:
            return None
        self.looking = True  # the other finders are asked now, this one not again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.looking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self.then(module)
                sys.meta_path.remove(self)

            spec.loader.exec_module = execute_and_call
        return spec

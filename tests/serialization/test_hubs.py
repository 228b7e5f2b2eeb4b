"""When the toolboxes' lists of models come to know the names here."""

import sys
from types import ModuleType

from mmengine.infer import BaseInferencer

from mmdense.serialization import hubs
from mmdense.serialization.hubs import WhenImported


def test_again_changes_nothing():
    load = BaseInferencer._load_model_from_metafile
    hubs.install()
    assert BaseInferencer._load_model_from_metafile is load


def test_a_module_is_found_as_often_as_it_is_looked_for():
    finder = WhenImported('wave', lambda module: None)
    for _ in range(2):
        assert finder.find_spec('wave', None).name == 'wave'
    assert finder.find_spec('json', None) is None


def test_a_module_that_is_not_there():
    assert WhenImported('no_such_module', print).find_spec('no_such_module', None) is None


def test_the_function_is_called_once_with_the_module(monkeypatch):
    called = []
    finder = WhenImported('wave', called.append)
    monkeypatch.setattr(sys, 'meta_path', [finder, *sys.meta_path])
    module = ModuleType('wave')
    finder.find_spec('wave', None).loader.exec_module(module)
    assert called == [module] and finder not in sys.meta_path

"""Configs by file and by name, and overrides from the command line that do not fit."""

import sys

import pytest
from helpers import CONFIGS

from mmdense.engine.config import find_config, read_config
from mmdense.errors import UserError


@pytest.mark.parametrize(
    'options', [{'a.0.b': 1}, {'a.5': 1}, {'a.x': 1}], ids=lambda options: next(iter(options))
)
def test_overrides_below_what_is_no_dict(options, tmp_path):
    (tmp_path / 'a.py').write_text('a = [1, 2]\nb = dict(c=1)\n')
    with pytest.raises(UserError, match=r'^--cfg-options do not fit this config: .+') as error:
        read_config(str(tmp_path / 'a.py'), options)
    assert '\n' not in str(error.value)
    assert read_config(str(tmp_path / 'a.py'), {'b.c': 5}).b == dict(c=5)


@pytest.mark.parametrize(
    'name',
    [
        'paca/mask_rcnn_paca_s_1x',
        'paca/mask_rcnn_paca_s_1x.py',
        'configs/paca/mask_rcnn_paca_s_1x.py',
        'mask_rcnn_paca_s_1x',
    ],
)
def test_configs_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name).samefile(CONFIGS / 'paca' / 'mask_rcnn_paca_s_1x.py')
    assert read_config(name).model.type == 'MaskRCNN'


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mask_rcnn_paca_s_1x.py').write_text('a = 1\n')
    assert read_config('mask_rcnn_paca_s_1x.py').to_dict() == dict(a=1)


@pytest.mark.parametrize(
    'name, hint',
    [
        ('mask_rcnn_paca_s_2x', r'did you mean mask_rcnn_paca_s_[13]x\?'),
        ('nothing/like/it.py', 'configs/ holds those of mmdense'),
        ('paca/_base_/mask_rcnn_paca_s', 'did you mean'),
        ('', 'configs/ holds'),
    ],
)
def test_no_such_config(name, hint):
    with pytest.raises(UserError, match=f"config '{name}' does not exist; {hint}"):
        read_config(name)


def test_modules_beside_a_config_can_be_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    folder = tmp_path / 'own'
    folder.mkdir()
    (folder / 'own_module_of_the_test.py').write_text('VALUE = 3\n')
    (folder / 'cfg.py').write_text("custom_imports = dict(imports=['own_module_of_the_test'])\n")
    read_config(str(folder / 'cfg.py'))
    assert sys.modules['own_module_of_the_test'].VALUE == 3
    assert sys.path[-1] == str(folder)  # it cannot stand in front of what is installed

"""tools/print_config.py: what is written loads to the same config, and differences are told."""

from pathlib import Path

import pytest
from helpers import FORMAT_CODE
from mmengine.config import Config
from yapf.yapflib import yapf_api

import mmdense

CONFIGS = Path(mmdense.__file__).parent / 'configs'
TINY, SMALL = CONFIGS / 'paca/paca_t_in1k.py', CONFIGS / 'paca/paca_s_in1k.py'
DIGITS = CONFIGS / 'digits/mask_rcnn_paca_digits.py'


@pytest.fixture(autouse=True)
def laid_out(monkeypatch):
    """As users see it: ``helpers`` leaves that out elsewhere."""
    monkeypatch.setattr(yapf_api, 'FormatCode', FORMAT_CODE)


def test_prints_the_whole_config(run_tool):
    code, out, err = run_tool('print_config.py', TINY, '--cfg-options', 'train_cfg.max_epochs=7')
    assert code == 0, err
    found = Config.fromstring(out, '.py')
    assert '_base_' not in found and found.train_cfg.max_epochs == 7
    expected = Config.fromfile(TINY)
    expected.train_cfg.max_epochs = 7
    assert found.to_dict() == expected.to_dict()


@pytest.mark.parametrize('name', ['mask_rcnn', 'upernet'])
def test_a_written_config_is_the_same(name, run_tool, tmp_path):
    """Those of the toolboxes (mmdet::, mmseg::) become part of the file."""
    config = next((CONFIGS / 'paca').glob(f'{name}_paca_s_*.py'))
    path = tmp_path / 'new' / 'whole.py'
    options = ['--cfg-options', 'work_dir=there', 'model.backbone.init_cfg=None']
    code, out, err = run_tool('print_config.py', config, '--out', path, *options)
    assert code == 0, err
    assert out == f"written to '{path}'\n" and list(path.parent.iterdir()) == [path]
    assert '_base_' not in Config.fromfile(path) and '::' not in path.read_text()
    expected = Config.fromfile(config)
    expected.merge_from_dict({'work_dir': 'there', 'model.backbone.init_cfg': None})
    assert Config.fromfile(path).to_dict() == expected.to_dict()


def changed(diff: str) -> list[str]:
    """The lines of a unified diff but its head and what is alike."""
    lines = [line.rstrip() for line in diff.splitlines()]
    return [line for line in lines if line[:1] in ('+', '-') and line not in ('---', '+++')]


def test_diff(run_tool, tmp_path):
    code, out, _ = run_tool('print_config.py', TINY, '--diff', SMALL)
    assert code == 0 and changed(out) == ["-        arch='tiny',", "+        arch='small',"]
    other = tmp_path / 'other.py'
    other.write_text(f"_base_ = '{DIGITS}'\nmodel = dict(neck=dict(num_outs=5), extra=1)\n")
    options = ['--cfg-options', 'model.neck.num_outs=3', 'model.only_here=1']
    code, out, _ = run_tool('print_config.py', DIGITS, *options, '--diff', other)
    assert code == 0 and [line.replace(' ', '') for line in changed(out)] == [
        '+extra=1,',
        '-num_outs=3,',
        '+num_outs=5,',
        '-only_here=1,',
    ]
    assert run_tool('print_config.py', TINY, '--diff', TINY)[1] == 'no difference\n'


@pytest.mark.parametrize(
    'args, message',
    [
        (('nothing.py',), "'nothing.py' does not exist"),
        ((TINY, '--diff', 'nothing.py'), "'nothing.py' does not exist"),
        ((TINY, '--cfg-options', 'model.backbone.arch.x=1'), '--cfg-options do not fit'),
        ((TINY, '--out', 'whole.json'), 'name a .py file'),
        ((TINY, '--out', 'folder.py'), "'folder.py' cannot be written"),
        ((TINY, '--out', 'file/whole.py'), "'file/whole.py' cannot be written"),
        (('infinite.py', '--out', 'whole.py'), "no form as a file: name 'inf' is not defined"),
        ((TINY, '--out', 'whole.py', '--cfg-options', '__x=1'), "the config has no '__x'"),
        (('picture.py',), 'cannot be read'),
    ],
)
def test_bad_input(args, message, run_tool, tmp_path, monkeypatch):
    """One line, exit code 1, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.py').mkdir()
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'infinite.py').write_text("x = dict(a=float('inf'))\n")
    (tmp_path / 'picture.py').write_bytes(b'\x89PNG\xff')
    before = sorted(tmp_path.rglob('*'))
    code, out, err = run_tool('print_config.py', *args)
    assert code == 1 and not out and err.count('\n') == 1 and message in err, err
    assert sorted(tmp_path.rglob('*')) == before and (tmp_path / 'file').read_text() == 'mine'


def test_out_and_diff_exclude_each_other(run_tool):
    code, _, err = run_tool('print_config.py', TINY, '--out', 'x.py', '--diff', SMALL)
    assert code == 2 and 'not allowed with' in err

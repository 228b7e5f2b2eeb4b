"""The tools as one command."""

import subprocess
import sys

import pytest

from mmdense.tools import mmdense_cli


def call(monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['mmdense', *args])
    mmdense_cli.main()


def test_help_lists_every_tool_by_its_first_line(monkeypatch, capsys):
    call(monkeypatch)
    listed = capsys.readouterr().out
    call(monkeypatch, '--help')
    assert capsys.readouterr().out == listed
    lines = listed.splitlines()
    assert '  train         Train a classifier, detector or segmentor.' in lines
    assert any(line.split()[:1] == ['flops'] for line in lines)
    assert 'get_flops' not in listed and 'model_zoo' not in listed and 'mmdense_cli' not in listed


@pytest.mark.parametrize('name', ['flops', 'get_flops'])
def test_a_tool_is_the_same_under_both_names(monkeypatch, capsys, run_tool, name):
    argument = '--json'
    call(monkeypatch, name, argument)
    assert capsys.readouterr().out == run_tool('get_flops.py', argument)[1]


def test_usage_names_the_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, 'convert', '--help')
    assert end.value.code == 0 and capsys.readouterr().out.startswith('usage: mmdense convert ')


def test_no_such_tool(monkeypatch):
    with pytest.raises(SystemExit, match="error: mmdense has no tool 'trian'; it has benchmark"):
        call(monkeypatch, 'trian')


def test_help_imports_nothing_of_the_package():
    program = (
        "import sys; sys.argv = ['mmdense']; "
        f"import runpy; runpy.run_path({mmdense_cli.__file__!r}, run_name='__main__'); "
        "assert not {'mmdense', 'torch', 'mmengine'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, '-c', program], check=True, stdout=subprocess.DEVNULL)

"""tools/model_zoo.py: stale pages are named, and written anew."""

import sys

import pytest

from mmdense.errors import UserError
from mmdense.tools import model_zoo as tool


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The tool, with one page of its own in place of the families'."""
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'docs' / 'images').mkdir(parents=True)
    monkeypatch.setattr(tool, 'pages', lambda: [(tmp_path / 'docs' / 'page.md', 'new')])
    monkeypatch.setattr(tool, 'read_records', lambda path: {})
    monkeypatch.setattr(tool, 'write_page', lambda tables, records: 'the study')
    monkeypatch.setattr(tool, 'ROOT', tmp_path)

    def run(*flags: str) -> None:
        monkeypatch.setattr(sys, 'argv', ['model_zoo.py', *flags])
        tool.main()

    return run


def test_stale_pages_are_written(call, tmp_path, capsys):
    page, study = tmp_path / 'docs' / 'page.md', tmp_path / 'docs' / 'study.md'
    page.write_text('old')
    with pytest.raises(UserError, match=r'stale: docs/page\.md, docs/study\.md; run `make zoo`'):
        call('--check')
    assert page.read_text() == 'old' and not study.exists()
    call()
    assert capsys.readouterr().out == 'wrote docs/page.md\nwrote docs/study.md\n'
    assert page.read_text() == 'new' and study.read_text() == 'the study'
    assert (tmp_path / 'docs' / 'images' / 'study.png').is_file()
    call('--check')
    call()
    assert not capsys.readouterr().out


def test_an_installed_package_has_no_pages(call, tmp_path):
    (tmp_path / 'configs').rmdir()
    with pytest.raises(UserError, match='in a checkout'):
        call()


def test_pages_of_this_checkout(run_tool):
    """Run `make zoo` after a change of a metafile, a table of the study or its results."""
    assert run_tool('model_zoo.py', '--check') == (0, '', '')

"""The bar of a training: on a terminal, and nowhere else."""

import io
import re

import pytest
from toy_run import Cut, CutError, make_config

from mmdense.engine import training


class Terminal(io.StringIO):
    def __init__(self, answer: bool) -> None:
        super().__init__()
        self.answer = answer

    def isatty(self) -> bool:
        return self.answer


def train(monkeypatch, cfg, is_terminal: bool = True) -> str:
    """Train and return what stderr got, as lines."""
    stream = Terminal(is_terminal)
    monkeypatch.setattr('sys.stderr', stream)
    training.train(cfg)
    return stream.getvalue()


def test_epochs(monkeypatch, tmp_path):
    shown = train(monkeypatch, make_config(tmp_path))
    for text in ('epoch 1/4', 'epoch 4/4', '24/24', 'evaluation'):
        assert text in shown
    assert re.search(r'\d\d:\d\d<(\d\d:\d\d|\?)', shown)  # the time that is left
    assert shown.endswith('\n')


def test_iterations(monkeypatch, tmp_path):
    shown = train(monkeypatch, make_config(tmp_path, by_epoch=False))
    assert '24/24' in shown and 'epoch' not in shown


def test_no_terminal(monkeypatch, tmp_path):
    assert train(monkeypatch, make_config(tmp_path), is_terminal=False) == ''


def test_lines_of_the_log_have_lines_of_their_own(monkeypatch, tmp_path, capsys):
    cfg = make_config(tmp_path, log_level='INFO')
    train(monkeypatch, cfg)
    lines = capsys.readouterr().out.splitlines()
    logged = [line for line in lines if 'Epoch(train)' in line]
    assert len(logged) == 24 and not any('it/s' in line for line in lines)


def test_an_error_has_a_line_of_its_own(monkeypatch, tmp_path):
    stream = Terminal(True)
    monkeypatch.setattr('sys.stderr', stream)
    with pytest.raises(CutError):
        training.train(make_config(tmp_path, custom_hooks=[dict(type=Cut, at=10)]))
    assert stream.getvalue().endswith('\n')


def test_a_resumed_training_goes_on_where_it_was(monkeypatch, tmp_path):
    with pytest.raises(CutError):
        training.train(make_config(tmp_path, custom_hooks=[dict(type=Cut, at=10)]))
    cfg = make_config(tmp_path, resume=True, load_from=str(tmp_path / 'cut.pth'))
    shown = train(monkeypatch, cfg)
    assert '10/24' in shown and ' 1/24' not in shown and '24/24' in shown

"""Values laid out as Python."""

import pytest
from makers import write
from mmengine.config import Config

from mmdense.intake.code import (
    Name,
    write_assignment,
    write_code,
    write_comment,
    write_docstring,
)

VALUES = [
    dict(a=1, b=dict(c='x' * 60, d=['y' * 60, (1,), ()]), e=None),
    {'not a name': 1, 'b': [1.5] * 60},
    ['it\'s "quoted"\n', -1e-5, True],
    ['{{$X:.*}}', '{{{{ fileDirname }}}}', '\\{{{', {'{{ a': 1}],
    dict(classes=tuple('abc' * 30)),
]


@pytest.mark.parametrize('value', VALUES)
def test_reads_back(value):
    text = write_assignment('value', value)
    scope: dict = {}
    exec(text, scope)
    assert scope['value'] == value
    assert '{{' not in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize('text', ['{{$HOME:x}}', "}}', 1)#{{{{ fileDirname }}}}", '\\{{{'])
def test_mmengine_replaces_nothing(text, tmp_path):
    code = [write_docstring(text, text), write_comment(text), write_assignment('value', text)]
    code.append(write_assignment('joined', Name(f'value + {text!r}')))
    path = tmp_path / 'config.py'
    write(path, '\n'.join(code))
    cfg = Config.fromfile(path)
    assert (cfg.value, cfg.joined) == (text, 2 * text)
    assert '{{' not in path.read_text()


def test_names_are_not_quoted():
    assert write_code(dict(classes=Name('classes')), 80) == 'dict(classes=classes)'

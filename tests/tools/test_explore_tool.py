"""tools/explore.py: what ends it in one line."""

import socket
import sys

import pytest
from helpers import DIGIT_CONFIGS, check_fails


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['a.py'], 'name a checkpoint after each config'),
        (['a.py', 'a.pth', '--port', '0'], '--port is between'),
        (['a.py', 'a.pth', '--score-thr', '2'], '--score-thr is between'),
    ],
)
def test_bad_flags(arguments, message, run_tool):
    code, _, err = run_tool('explore.py', *arguments)
    assert code == 2 and message in err


def test_without_gradio(run_tool, untrained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    result = run_tool('explore.py', DIGIT_CONFIGS['mmdet'], untrained('mmdet'))
    check_fails(result, "pip install 'mmdense[explore]'")


@pytest.mark.slow
def test_a_port_that_is_taken(gradio, run_tool, untrained, place):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_tool('explore.py', DIGIT_CONFIGS['mmdet'], untrained('mmdet'), '--port', port)
    check_fails(result, f'--port {port} is taken')

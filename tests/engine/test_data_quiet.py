"""What the toolboxes print at their import does not come before a tool's result."""

import subprocess
import sys

import pytest

CODE = """
import mmdense
from mmengine.config import Config
from mmdense.engine.data import prepare_loading
prepare_loading(Config(dict(default_scope={scope!r})))
import {scope}.datasets
"""


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_data_sets_are_imported_quietly(scope):
    code = CODE.format(scope=scope)
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == '', result.stderr

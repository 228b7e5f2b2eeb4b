"""What the toolboxes print at their import does not come before a tool's result."""

import subprocess
import sys

CODE = """
import mmdense
from mmengine.config import Config
from mmdense.engine.data import prepare_loading
for scope in ('mmdet', 'mmseg', 'mmpretrain'):
    prepare_loading(Config(dict(default_scope=scope)))
import mmdet.datasets, mmseg.datasets, mmpretrain.datasets
"""


def test_data_sets_are_imported_quietly():
    result = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == '', result.stderr


def test_the_package_alone_imports_no_toolbox():
    code = "import sys, mmdense; print([m for m in ('mmdet', 'mmseg') if m in sys.modules])"
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == '[]\n', result.stderr

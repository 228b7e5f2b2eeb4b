"""The short form of ``make stress``: trainings that are killed, stopped and moved go on exactly."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, '-W', 'ignore', ROOT / 'tests' / 'stress.py', '--minutes', '0.4']
    command += ['--only', 'kill', 'signal', 'moved_work_dir', '--out', tmp_path / 'table.json']
    env = dict(os.environ, PYTHONPATH=str(ROOT.parent))
    result = subprocess.run(
        list(map(str, command)), env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    rows = json.loads((tmp_path / 'table.json').read_text())
    assert rows and all(row['tries'] == row['exact'] == row['survived'] for row in rows)

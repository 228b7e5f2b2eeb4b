"""A family is declared in its own module and folder of configs, and found everywhere else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

TOY = Path(__file__).parent / 'toy'
SUITES = ('backbones/test_base.py', 'configs/test_configs.py', 'test_timm_models.py')


@pytest.fixture(scope='module')
def house(tmp_path_factory) -> Path:
    """A copy of the package with the toy family, its config and recipe; no other line changed."""
    house = tmp_path_factory.mktemp('copy') / 'mmdense'
    files = [path for path in ROOT.iterdir() if path.suffix in ('.py', '.yml', '.toml')]
    for package in ROOT.glob('*/__init__.py'):
        files += package.parent.glob('*.py')
    for folder in ('configs', 'docs', 'tests'):
        files += (path for path in (ROOT / folder).rglob('*') if '.' in path.name)
    for path in files:
        if path.is_file() and '__pycache__' not in path.parts:
            copy = house / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copy(TOY / 'family.py', house / 'families' / 'toy.py')
    (house / 'configs' / 'toy').mkdir()
    for name in ('toy_n_in1k.py', 'metafile.yml'):
        shutil.copy(TOY / name, house / 'configs' / 'toy' / name)
    shutil.copy(TOY / 'recipe.py', house / 'tests' / 'configs' / 'recipes' / 'toy.py')
    return house


@pytest.fixture(scope='module')
def said(house) -> str:
    """What the copy's own tests of the toy family print, run there."""
    env = dict(os.environ, PYTHONPATH=str(house.parent), OMP_NUM_THREADS='1')
    env.pop('PYTEST_XDIST_WORKER', None)
    options = ('-k', 'Toy or toy', '-p', 'no:cacheprovider', '-o', 'addopts=', '-v')
    files = ('tests/families/toy/check.py', *(f'tests/{suite}' for suite in SUITES))
    command = [sys.executable, '-m', 'pytest', *options, *files]
    done = subprocess.run(command, cwd=house, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_everything_finds_it(said):
    assert 'check.py::test_everything_finds_it PASSED' in said


@pytest.mark.parametrize('suite', SUITES)
def test_suites_take_it_in(suite, said):
    lines = [line for line in said.splitlines() if f'{suite}::' in line]
    assert any(' PASSED ' in line for line in lines)

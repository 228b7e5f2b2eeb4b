"""The wheel: complete, without setup.py, and its configs are found by name."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

PARTS = sorted(path.parent.name for path in ROOT.glob('*/__init__.py'))


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as a compiler-less machine would."""
    source, out = tmp_path_factory.mktemp('source') / 'mmdense', tmp_path_factory.mktemp('wheel')
    tracked = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split('\0')[:-1]:
        if not name.startswith('tests/') and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation']
    env = {**os.environ, 'CC': 'false', 'CXX': 'false'}
    subprocess.run([*command, '--wheel-dir', str(out), str(source)], check=True, env=env)
    return next(out.glob('mmdense-*.whl'))


def find_files(part: Path) -> list[Path]:
    return [*part.glob('*.py'), *part.glob('*.jinja')]


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert 'mmdense/setup.py' not in names
    own = [path for part in PARTS for path in find_files(ROOT / part)]
    assert len(own) > 50
    for path in own:
        assert f'mmdense/{path.relative_to(ROOT)}' in names
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.suffix in ('.py', '.sh', '.yml'):
                assert f'mmdense/.mim/{path.relative_to(ROOT)}' in names
    assert not any(name.startswith(('mmdense/tests', 'mmdense/build')) for name in names)


def test_configs_are_found_by_name(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdense::paca/mask_rcnn_paca_t_1x.py'\n")
    program = (
        'import mmdense; from mmengine.config import Config; '
        "print(mmdense.__file__, Config.fromfile('mine.py').model.backbone.arch)"
    )
    env = {**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(tmp_path / 'site' / 'mmdense' / '__init__.py'), 'tiny']


def test_model_index_leads_to_every_config(wheel, tmp_path):
    """As mim looks a model up: model-index.yml, the metafile, the config."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    root = tmp_path / 'mmdense' / '.mim'
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    models = [m for f in index['Import'] for m in yaml.safe_load((root / f).read_text())['Models']]
    assert len(models) == len({m['Name'] for m in models}) > 80
    assert all((root / model['Config']).is_file() for model in models)


@pytest.mark.slow
def test_the_command_works_in_an_empty_folder(wheel, tmp_path):
    """Configs by name, and a tool's answer to a mistake."""
    site, place = tmp_path / 'site', tmp_path / 'empty'
    place.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    (info,) = site.glob('mmdense-*.dist-info')
    assert 'mmdense = mmdense_cli:main' in (info / 'entry_points.txt').read_text()

    def run(*args: str) -> subprocess.CompletedProcess:
        program = 'import sys; from mmdense_cli import main; sys.exit(main())'
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', program, *args],
            cwd=place,
            env={**os.environ, 'PYTHONPATH': str(site)},
            capture_output=True,
            text=True,
        )

    assert 'Evaluate a classifier' in run('--help').stdout
    assert 'paca/mask_rcnn_paca_s_1x' in run('flops').stdout
    done = run('train', 'digits/paca_digits', '--dry-run')
    assert done.returncode == 1 and 'does not exist' in done.stderr.splitlines()[-1], done.stderr
    assert list(place.iterdir()) == []

"""tools/doctor.py finds what is wrong and names the command that mends it, whatever is broken."""

import importlib.metadata
import json
import os
import subprocess
import sys
import types
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
import torchvision

import mmdense
from mmdense.families import FAMILIES
from mmdense.tools import doctor
from mmdense.tools.doctor import Check, Finding, examine

TOOL = Path(mmdense.__file__).parent / 'tools' / 'doctor.py'
REINSTALL = f'{doctor.PIP} install --no-cache-dir --no-deps --force-reinstall'
MMCV = "'onedl-mmcv<2.4,>=2.3.6'"


def failure(name: str) -> Finding:
    found = examine(doctor.CHECKS[name]._replace(needs=()), {})
    assert found.status == 'FAIL' and '\n' not in found.text, found
    return found


@pytest.fixture(scope='module')
def said() -> dict[tuple[str, ...], subprocess.CompletedProcess]:
    """What commands have answered, which tests that leave the environment alone need not repeat."""
    return {}


@pytest.fixture
def run_doctor(run_tool, said, monkeypatch):
    """Runs the tool; a command that it starts is run once for all tests that use this."""
    run = subprocess.run

    def run_once(command: list[str], **options: object) -> subprocess.CompletedProcess:
        key = tuple(command)
        if key not in said:
            said[key] = run(command, **options)
        return said[key]

    monkeypatch.setattr(subprocess, 'run', run_once)
    return partial(run_tool, 'doctor.py')


@pytest.fixture
def distributions(monkeypatch):
    """Changes what is installed: versions by name, None for what is not there."""

    def change(**versions: str | None) -> None:
        version = importlib.metadata.version

        def find(name: str) -> str:
            found = versions.get(name.replace('-', '_'), ...)
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name) if found is ... else found

        monkeypatch.setattr(importlib.metadata, 'version', find)

    return change


@pytest.fixture
def fake_module(monkeypatch, tmp_path):
    """Puts a package of these files in the place of another; it is found, and imported anew."""

    def make(package: str, files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in [n for n in sys.modules if n.split('.')[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path / package

    return make


class TestHere:
    """The environment that runs the tests is a healthy one."""

    def test_all_is_well(self, run_doctor):
        code, out, err = run_doctor()
        assert code == 0, out + err
        assert 'all is well' in out and 'FAIL' not in out and not err
        lines = {line.split()[0]: line for line in out.splitlines() if line}
        for name in ('torch', 'onedl-mmcv', 'opencv-python', 'PyTorch', *doctor.CHECKS):
            assert name in lines
        assert torch.__version__ in lines['PyTorch']
        for family in FAMILIES:
            assert family.backbone.__name__ in lines['backbones']

    def test_json(self, run_doctor):
        code, out, _ = run_doctor('--json')
        found = json.loads(out)
        assert code == 0 and found.keys() == {'installed', 'checks'}
        assert [check['name'] for check in found['checks']] == list(doctor.CHECKS)
        assert {check['status'] for check in found['checks']} <= {'ok', 'note'}
        assert found['installed']['onedl-mmengine'] == importlib.metadata.version('onedl-mmengine')


class TestAnyPython:
    """It runs to its end where nothing can be imported."""

    def test_without_any_package(self):
        command = [sys.executable, '-I', '-S', str(TOOL)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1 and not result.stderr
        lines = [line for line in result.stdout.splitlines() if 'FAIL' in line or 'mend' in line]
        assert 'metadata was found for mmdense' in lines[0]
        assert lines[1].split(': ')[1] == doctor.INSTALL
        assert '3 failed; mend the first one first' in result.stdout  # torch and OpenCV too

    def test_torch_and_mmdense_do_not_import(self, run_doctor, monkeypatch):
        for name in ('torch', 'mmdense'):
            monkeypatch.setitem(sys.modules, name, None)
        code, out, err = run_doctor('--json')
        assert code == 1 and not err
        checks = {check['name']: check for check in json.loads(out)['checks']}
        assert checks['torch']['status'] == 'FAIL' and checks['opencv']['status'] == 'ok'
        assert checks['mmcv']['text'] == 'not checked, it needs torch'
        assert checks['backbones']['text'] == 'not checked, it needs import'

    def test_what_is_installed_is_listed_as_far_as_it_can_be(self, distributions, monkeypatch):
        distributions(timm=None)
        monkeypatch.setattr(doctor, 'COLLECT', 'import nothing_of_this_name')
        found = doctor.list_installed()
        assert found['machine'].endswith("No module named 'nothing_of_this_name'")
        assert found['timm'] == 'not installed' and found['torch'] and found['Python']

    def test_a_check_that_fails_unforeseen(self):
        def crash() -> Finding:
            print('chatter')
            raise SyntaxError('first line\nsecond line')

        assert examine(Check(crash, 'mend it'), {}) == ('FAIL', 'second line', 'mend it')

    def test_what_needs_a_failed_check_is_not_checked(self):
        before = {'a': Finding('ok', ''), 'b': Finding('FAIL', '', 'mend b')}
        check = Check(lambda: pytest.fail('was run'), '', ('a', 'b'))
        assert examine(check, before) == ('note', 'not checked, it needs b', '')

    def test_needs_come_before(self):
        names = list(doctor.CHECKS)
        for name, check in doctor.CHECKS.items():
            assert all(names.index(need) < names.index(name) for need in check.needs)


class TestDistributions:
    def test_mmdense_is_not_installed(self, distributions):
        distributions(mmdense=None)
        assert failure('installation').remedy == doctor.INSTALL

    @pytest.fixture
    def add_distribution(self, monkeypatch, tmp_path):
        """Puts a distribution before those that are there, with these requirements and folders."""

        def add(name: str, requires: tuple[str, ...] = (), packages: tuple[str, ...] = ()) -> None:
            folder = tmp_path / f'{name.replace("-", "_")}-0.1.0.dist-info'
            folder.mkdir()
            lines = [f'Name: {name}', 'Version: 0.1.0', *(f'Requires-Dist: {r}' for r in requires)]
            (folder / 'METADATA').write_text('\n'.join(['Metadata-Version: 2.1', *lines, '']))
            (folder / 'top_level.txt').write_text('\n'.join(packages))
            monkeypatch.syspath_prepend(tmp_path)
            monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)

        return add

    def test_missing_and_out_of_range(self, add_distribution):
        add_distribution('mmdense', ('nothing-of-this-name>=1', 'numpy<1.0,>=0.9'))
        found = failure('requirements')
        assert 'mmdense 0.1.0 requires nothing-of-this-name, which is not installed' in found.text
        assert 'mmdense 0.1.0 has requirement numpy<1.0,>=0.9, but you have' in found.text
        assert found.remedy == doctor.INSTALL

    def test_requirements_of_what_does_not_concern_us(self, add_distribution):
        add_distribution('stranger', ('nothing-of-this-name',))
        found = examine(doctor.CHECKS['requirements']._replace(needs=()), {})
        assert found.status == 'note' and 'stranger 0.1.0 requires' in found.text

    @pytest.mark.parametrize(
        'twin, package', [('mmengine-lite', 'mmengine'), ('mmcv-full', 'mmcv'), ('mmdet', 'mmdet')]
    )
    def test_twins(self, twin, package, add_distribution):
        add_distribution(twin, packages=(package,))
        found = failure('twins')
        ours = doctor.ONEDL[package]
        assert found.text.startswith(f'{twin} is installed beside {ours}')
        assert found.remedy.startswith(f'{doctor.PIP} uninstall -y {twin} && {REINSTALL} ')
        assert f"'{ours}<" in found.remedy


class TestTorch:
    REMEDY = (
        f'{doctor.PIP} install --no-cache-dir --force-reinstall '
        "'torch>=2.8' 'torchvision>=0.23' 'numpy<2.3,>=2'"
    )

    def test_of_another_build(self, fake_module):
        """As torchvision says it when it was compiled for another torch."""
        text = "raise RuntimeError('operator torchvision::nms does not exist')"
        fake_module('torchvision', {'__init__.py': text})
        found = failure('torch')
        assert found.text == 'RuntimeError: operator torchvision::nms does not exist'
        assert found.remedy == self.REMEDY

    def test_wrong_results(self, monkeypatch):
        monkeypatch.setattr(torchvision.ops, 'nms', lambda *args: torch.tensor([0, 1]))
        found = failure('torch')
        assert 'nms keeps boxes [0, 1] on cpu' in found.text and found.remedy == self.REMEDY


class TestOpenCV:
    REMEDY = f'{REINSTALL} opencv-python-headless=={doctor.find_version("opencv-python")}'

    def test_no_libgl(self, fake_module):
        error = 'libGL.so.1: cannot open shared object file: No such file or directory'
        fake_module('cv2', {'__init__.py': f'raise ImportError({error!r})'})
        assert failure('opencv') == ('FAIL', f'ImportError: {error}', self.REMEDY)

    def test_an_empty_folder(self, monkeypatch, tmp_path):
        """What an uninstallation leaves: it imports, and holds nothing."""
        left = types.ModuleType('cv2')
        left.__spec__ = ModuleSpec('cv2', None, is_package=True)
        left.__spec__.submodule_search_locations.append(str(tmp_path))
        monkeypatch.setitem(sys.modules, 'cv2', left)
        found = failure('opencv')
        assert "no attribute '__version__'" in found.text and found.remedy == self.REMEDY


class TestMMCV:
    def test_compiled_for_another_torch(self, fake_module):
        error = '_ext.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationE'
        files = {'__init__.py': "__version__ = '2.3.6'", '_ext.py': f'raise ImportError({error!r})'}
        fake_module('mmcv', files)
        found = failure('mmcv')
        assert found == ('FAIL', f'ImportError: {error}', f'{REINSTALL} {MMCV}')

    def test_compiled_for_this_torch(self, fake_module):
        fake_module('mmcv', {'__init__.py': "__version__ = '2.3.6'", '_ext.py': ''})
        assert 'operators are compiled' in doctor.try_mmcv()

    def test_an_operator_does_not_run(self, monkeypatch):
        import mmcv.ops

        def missing(*args: object) -> None:
            raise NotImplementedError('no kernel')

        monkeypatch.setattr(mmcv.ops, 'nms', missing)
        found = failure('operators')
        assert found == ('FAIL', 'NotImplementedError: no kernel', f'{REINSTALL} {MMCV}')


class TestPackages:
    @pytest.mark.parametrize('package', ['mmdense', *doctor.CONFIGS])
    def test_a_config_is_not_found(self, package, monkeypatch):
        run = partial(doctor.try_config, package, '_base_/nothing_here.py')
        check = doctor.CHECKS[f'{package}::']._replace(run=run)
        monkeypatch.setitem(doctor.CHECKS, f'{package}::', check)
        found = failure(f'{package}::')
        assert 'nothing_here.py' in found.text
        remedy = REINSTALL if package in doctor.CONFIGS else doctor.INSTALL
        assert found.remedy.startswith(remedy)

    def test_a_toolbox_does_not_import(self, fake_module):
        text = "assert False, 'MMCV==3.0.0 is used but incompatible'"
        fake_module('mmseg', {'__init__.py': text})
        found = failure('mmseg::')
        assert 'MMCV==3.0.0 is used but incompatible' in found.text
        assert found.remedy == f"{REINSTALL} 'onedl-mmsegmentation<1.5,>=1.4.2'"

    def test_mmdense_does_not_import(self, fake_module):
        fake_module('mmdense', {'__init__.py': 'import nothing_of_this_name'})
        found = failure('import')
        assert found.text == "ModuleNotFoundError: No module named 'nothing_of_this_name'"
        assert found.remedy == doctor.INSTALL

    def test_a_backbone_does_not_run(self, monkeypatch):
        def fail(self: object, x: torch.Tensor) -> None:
            raise RuntimeError('no such kernel')

        monkeypatch.setattr(mmdense.backbones.FCViT, 'forward', fail)
        found = failure('backbones')
        assert found == ('FAIL', 'RuntimeError: no such kernel', 'make env')


def test_gpus_are_used_where_there_are_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert doctor.find_devices() == ['cpu', 'cuda']


@pytest.mark.parametrize('version, status', [(None, 'ok'), ('4.57.1', 'ok'), ('5.23.0', 'note')])
def test_transformers(distributions, version, status):
    distributions(transformers=version)
    found = examine(doctor.CHECKS['transformers'], {})
    assert found.status == status
    if status == 'note':
        assert 'NoneType takes no arguments' in found.text
        assert found.remedy == f"{doctor.PIP} install 'transformers<5'"

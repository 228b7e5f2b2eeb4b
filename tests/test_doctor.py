"""tools/doctor.py finds what is wrong and names the command that mends it, whatever is broken."""

import importlib.metadata
import json
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
import torchvision

import mmdense
from mmdense.tools import doctor
from mmdense.tools.doctor import Broken, Check, Finding, examine

TOOL = Path(mmdense.__file__).parent / 'tools' / 'doctor.py'
REINSTALL = f'{doctor.PIP} install --no-cache-dir --no-deps --force-reinstall'
MMCV = "'onedl-mmcv<2.4,>=2.3.6'"


def failure(name: str) -> Finding:
    found = examine(doctor.CHECKS[name]._replace(needs=()), {})
    assert found.status == 'FAIL' and '\n' not in found.text, found
    return found


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

    def test_all_is_well(self, run_tool):
        code, out, err = run_tool('doctor.py')
        assert code == 0, out + err
        assert 'all is well' in out and 'FAIL' not in out and not err
        lines = {line.split()[0]: line for line in out.splitlines() if line}
        for name in ('torch', 'onedl-mmcv', 'cv2', 'GPUs', *doctor.BACKBONES, 'mmseg::', 'pins'):
            assert name in lines
        assert torch.__version__ in out

    def test_json(self, run_tool):
        code, out, _ = run_tool('doctor.py', '--json')
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
        assert 'mmdense is not installed' in lines[0] and lines[1].split(': ')[1] == doctor.INSTALL
        assert '3 failed; mend the first one first' in result.stdout  # torch and OpenCV too

    def test_torch_and_mmdense_do_not_import(self, run_tool, monkeypatch):
        for name in ('torch', 'mmdense'):
            monkeypatch.setitem(sys.modules, name, None)
        code, out, err = run_tool('doctor.py', '--json')
        assert code == 1 and not err
        checks = {check['name']: check for check in json.loads(out)['checks']}
        assert checks['torch']['status'] == 'FAIL' and checks['opencv']['status'] == 'ok'
        assert checks['mmcv']['text'] == 'not checked, it needs torch'
        assert checks['PaCaViT']['text'] == 'not checked, it needs import'
        assert 'torch does not run' in json.loads(out)['installed']['GPUs']

    def test_a_check_that_fails_unforeseen(self):
        def crash() -> Finding:
            print('chatter')
            raise SyntaxError('first line\nsecond line')

        assert examine(Check(crash), {}) == ('FAIL', 'second line', doctor.INSTALL)

    def test_what_needs_a_failed_check_is_not_checked(self):
        before = {'a': Finding('ok', ''), 'b': Finding('FAIL', '', 'mend b')}
        check = Check(lambda: pytest.fail('was run'), ('a', 'b'))
        assert examine(check, before) == ('note', 'not checked, it needs b', '')

    def test_needs_come_before(self):
        names = list(doctor.CHECKS)
        for name, check in doctor.CHECKS.items():
            assert all(names.index(need) < names.index(name) for need in check.needs)


class TestDistributions:
    def test_mmdense_is_not_installed(self, distributions):
        distributions(mmdense=None)
        assert failure('installation')[1:] == ('mmdense is not installed', doctor.INSTALL)

    def test_python(self, monkeypatch):
        monkeypatch.setattr('platform.python_version', lambda: '3.13.1')
        found = failure('python')
        assert 'Python 3.13.1 is not in' in found.text
        assert found.remedy == 'make env PYTHON=python3.11'

    def test_missing_and_out_of_range(self, distributions):
        distributions(timm=None, numpy='2.3.0', onedl_mmcv='2.4.0', torch='2.8.0+cu128')
        found = failure('requirements')
        assert found.text == (
            'onedl-mmcv 2.4.0 is not in <2.4,>=2.3.6; timm is not installed; '
            'numpy 2.3.0 is not in <2.3,>=2'
        )
        wanted = f"{MMCV} 'timm<1.1,>=1.0.20' 'numpy<2.3,>=2'"
        assert found.remedy == f'{doctor.PIP} install --no-cache-dir {wanted}'

    def test_extras_are_not_required(self, distributions):
        distributions(scikit_learn=None, pytest=None)
        assert doctor.check_requirements().status == 'ok'

    @pytest.mark.parametrize('twin', doctor.TWINS)
    def test_twins(self, twin, distributions):
        distributions(**{twin.replace('-', '_'): '1.0.0'})
        found = failure('twins')
        ours = doctor.TWINS[twin]
        assert found.text.startswith(f'{twin} is installed beside {ours}')
        assert found.remedy.startswith(f'{doctor.PIP} uninstall -y {twin} && {REINSTALL} ')
        assert f"'{ours}<" in found.remedy

    def test_pins(self, distributions, monkeypatch, tmp_path):
        distributions(timm='1.0.20', imaug=None)
        found = doctor.check_pins()
        assert found.status == 'note' and '1 are not installed' in found.text
        assert 'timm 1.0.20 (' in found.text and 'torch' not in found.text
        monkeypatch.setattr(doctor, 'REQUIREMENTS', tmp_path / 'requirements.txt')
        assert doctor.check_pins().status == 'note'
        (tmp_path / 'requirements.txt').write_text('# all\ntimm==1.0.20\n')
        assert doctor.check_pins() == ('ok', 'all 1 versions are those of requirements.txt', '')


class TestTorch:
    REMEDY = (
        f"{doctor.PIP} install --force-reinstall 'torch>=2.8' 'torchvision>=0.23' 'numpy<2.3,>=2'"
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
    VERSION = 'opencv_version = "4.12.0.88"\ncontrib = False\nheadless = {}\n'

    @pytest.mark.parametrize('headless', [True, False])
    def test_no_libgl(self, fake_module, headless):
        error = 'libGL.so.1: cannot open shared object file: No such file or directory'
        version = self.VERSION.format(headless)
        files = {'__init__.py': f'raise ImportError({error!r})', 'version.py': version}
        fake_module('cv2', files)
        found = failure('opencv')
        name = 'opencv-python-headless' if headless else 'opencv-python'
        assert found.text == f'ImportError: {error}; the files in place are those of {name}'
        assert found.remedy == f'{REINSTALL} opencv-python-headless==4.12.0.88'

    def test_an_empty_folder(self, monkeypatch, tmp_path):
        """What an uninstallation leaves: it imports, and holds nothing."""
        left = types.ModuleType('cv2')
        left.__spec__ = ModuleSpec('cv2', None, is_package=True)
        left.__spec__.submodule_search_locations.append(str(tmp_path))
        monkeypatch.setitem(sys.modules, 'cv2', left)
        found = failure('opencv')
        assert "no attribute '__version__'; the files in place are those of no" in found.text
        assert found.remedy == f'{REINSTALL} opencv-python-headless'

    def test_contrib(self, fake_module):
        version = self.VERSION.format(True).replace('contrib = False', 'contrib = True')
        fake_module('cv2', {'__init__.py': '', 'version.py': version})
        assert doctor.find_opencv() == ('opencv-contrib-python-headless', '4.12.0.88')


class TestMMCV:
    def test_compiled_for_another_torch(self, fake_module):
        error = '_ext.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationE'
        files = {'__init__.py': "__version__ = '2.3.6'", '_ext.py': f'raise ImportError({error!r})'}
        fake_module('mmcv', files)
        assert doctor.find_operators() == 'compiled'
        found = failure('mmcv')
        assert found == ('FAIL', f'ImportError: {error}', f'{REINSTALL} {MMCV}')

    def test_compiled_for_this_torch(self, fake_module):
        fake_module('mmcv', {'__init__.py': "__version__ = '2.3.6'", '_ext.py': ''})
        assert 'operators are compiled' in doctor.check_mmcv().text

    @pytest.mark.parametrize('name', ['nms', 'roi_align'])
    def test_an_operator_does_not_run(self, name, monkeypatch):
        import mmcv.ops

        def missing(*args: object) -> None:
            raise NotImplementedError('no kernel')

        monkeypatch.setattr(mmcv.ops, name, missing)
        found = failure('operators')
        assert found == ('FAIL', 'NotImplementedError: no kernel', f'{REINSTALL} {MMCV}')

    def test_wrong_results(self, monkeypatch):
        import mmcv.ops

        monkeypatch.setattr(mmcv.ops, 'roi_align', lambda *args: torch.zeros(1))
        assert 'roi_align of ones is not one on cpu' in failure('operators').text


class TestPackages:
    @pytest.mark.parametrize('package', doctor.CONFIGS)
    def test_configs_are_not_laid_out(self, package, monkeypatch, tmp_path):
        monkeypatch.setattr(doctor, 'find_folder', lambda name: tmp_path / name)
        found = failure(f'{package}::')
        assert found.text.endswith(f"no folder '{package}/.mim/configs'")
        wanted = {
            'mmdense': doctor.INSTALL,
            'mmdet': f"{REINSTALL} 'onedl-mmdetection<3.6,>=3.5.1'",
        }
        assert found.remedy == wanted.get(package, found.remedy)
        assert found.remedy != doctor.INSTALL or package == 'mmdense'

    def test_a_config_is_not_found(self, monkeypatch):
        monkeypatch.setitem(doctor.CONFIGS, 'mmdet', 'nothing/here.py')
        assert 'nothing/here.py' in failure('mmdet::').text

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
        found = failure('FCViT')
        assert found == ('FAIL', 'RuntimeError: no such kernel', 'make env PYTHON=python3.11')


def test_gpus_are_used_where_there_are_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert doctor.find_devices() == ['cpu', 'cuda']
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: f'GPU {i}')
    assert doctor.find_gpus() == 'GPU 0, GPU 1'


def test_broken_carries_its_remedy():
    with pytest.raises(Broken, match='ValueError: what') as caught, doctor.mended_by('command'):
        raise ValueError('what')
    assert caught.value.remedy == 'command'

"""Say whether this environment runs mmdense, and which command mends what is wrong.

python tools/doctor.py
python tools/doctor.py --json

Starts in any Python, whatever is missing. The exit code is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

# All else is imported inside the checks, since it may be what is broken.

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements.txt'
TOOLBOXES = {
    'mmdet': 'onedl-mmdetection',
    'mmseg': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
SHOWN = ('torch', 'torchvision', 'onedl-mmengine', 'onedl-mmcv', *TOOLBOXES.values(), 'timm')
OPTIONAL = ('onnx', 'onnxruntime', 'onnxscript')
TWINS = {  # distributions that have, or had, the import name of one of ours
    'mmengine': 'onedl-mmengine',
    'mmengine-lite': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmcv-lite': 'onedl-mmcv',
    'mmcv-full': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
    'mmcls': 'onedl-mmpretrain',
}
CONFIGS = {
    'mmdense': 'paca/paca_t_in1k.py',
    'mmdet': '_base_/models/mask-rcnn_r50_fpn.py',
    'mmseg': '_base_/models/upernet_r50.py',
    'mmpretrain': '_base_/default_runtime.py',
}
BACKBONES = {'PaCaViT': 'tiny', 'GroupMixFormer': 'miny', 'FCViT': 'tiny', 'MSFViT': 'small'}
PIP = f'{shlex.quote(sys.executable)} -m pip'
INSTALL = f'{PIP} install -e .'
NEW_ENVIRONMENT = 'make env PYTHON=python3.11'


class Finding(NamedTuple):
    """What a check found."""

    status: str  # 'ok', 'FAIL' or 'note'
    text: str
    remedy: str = ''  # the command that mends a failure


class Broken(Exception):
    """A check has failed, and this command mends it."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


@contextlib.contextmanager
def mended_by(remedy: str) -> Iterator[None]:
    """Whatever goes wrong inside is mended by this command."""
    try:
        yield
    except Exception as error:
        raise Broken(last_line(error), remedy) from error


def last_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.strip().splitlines()[-1]


# What is installed


def find_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_folder(package: str) -> Path | None:
    """Where a package lies, which is not imported."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else ()
    return Path(folders[0]) if folders else None


def find_opencv() -> tuple[str, str] | None:
    """Distribution and version of what lies in the folder cv2: several write to it."""
    path = (find_folder('cv2') or Path()) / 'version.py'
    if not path.is_file():
        return None
    found = dict(re.findall(r'^(\w+) = "?([^"\n]+)', path.read_text(), re.MULTILINE))
    contrib = 'contrib-' if found.get('contrib') == 'True' else ''
    headless = '-headless' if found.get('headless') == 'True' else ''
    return f'opencv-{contrib}python{headless}', found['opencv_version']


def find_operators() -> str:
    """What mmcv's operators are."""
    folder = find_folder('mmcv')
    if folder is None:
        return 'not installed'
    return 'compiled' if any(folder.glob('_ext.*')) else 'bridged by mmdense'


def find_devices() -> list[str]:
    import torch

    return ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']


def find_gpus() -> str:
    try:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception:
        return 'not known, since torch does not run'
    return ', '.join(names) or 'none'


def list_installed() -> dict[str, str]:
    """What there is, by name."""
    found = {'python': f'{platform.python_version()} ({sys.executable})'}
    for name in (*SHOWN, 'numpy', *OPTIONAL):
        missing = 'not installed (optional)' if name in OPTIONAL else 'not installed'
        found[name] = find_version(name) or missing
    distribution, version = find_opencv() or ('-', 'not installed')
    found['cv2'] = f'{version} ({distribution})'
    found['mmcv operators'] = find_operators()
    found['GPUs'] = find_gpus()
    found['CPU threads'] = str(os.cpu_count())
    return found


# Commands


def with_range(*distributions: str) -> str:
    """Distributions with the ranges of setup.py, as arguments of pip."""
    try:
        lines = importlib.metadata.requires('mmdense') or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    ranges = {re.match(r'[\w.-]+', line)[0]: line for line in lines if ';' not in line}
    return ' '.join(f"'{ranges.get(name, name)}'" for name in distributions)


def reinstall(requirements: str) -> str:
    """The command that writes files anew and touches no other distribution.

    pip's cache is left out, because a wheel of mmcv for another torch may lie there.
    """
    return f'{PIP} install --no-cache-dir --no-deps --force-reinstall {requirements}'


# Checks


def check_installed() -> Finding:
    version = find_version('mmdense')
    if version is None:
        raise Broken('mmdense is not installed', INSTALL)
    return Finding('ok', f'mmdense {version} is installed')


def check_python() -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted = importlib.metadata.metadata('mmdense')['Requires-Python']
    version = platform.python_version()
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        raise Broken(f'Python {version} is not in {wanted}', NEW_ENVIRONMENT)
    return Finding('ok', f'Python {version} is in {wanted}')


def check_requirements() -> Finding:
    """What setup.py requires is there, within its ranges."""
    from packaging.requirements import Requirement

    lines = importlib.metadata.requires('mmdense') or []
    wanted = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()]
    wrong = {}
    for requirement in wanted:
        name, version = requirement.name, find_version(requirement.name)
        if version is None:
            wrong[name] = f'{name} is not installed'
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong[name] = f'{name} {version} is not in {requirement.specifier}'
    if wrong:
        raise Broken(
            '; '.join(wrong.values()), f'{PIP} install --no-cache-dir {with_range(*wrong)}'
        )
    return Finding('ok', f'all {len(wanted)} distributions are there, within their ranges')


def check_twins() -> Finding:
    """No other distribution writes to the folders of the onedl ones."""
    found = [name for name in TWINS if find_version(name)]
    if found:
        ours = dict.fromkeys(TWINS[name] for name in found)
        raise Broken(
            f'{", ".join(found)} is installed beside {", ".join(ours)}, and they share names',
            f'{PIP} uninstall -y {" ".join(found)} && {reinstall(with_range(*ours))}',
        )
    return Finding('ok', 'no other distribution has the names of the onedl ones')


def check_torch() -> Finding:
    """torch and torchvision are of one build: torchvision's compiled operators run."""
    with mended_by(
        f'{PIP} install --force-reinstall {with_range("torch", "torchvision", "numpy")}'
    ):
        import torch
        import torchvision

        check_nms(torchvision.ops.nms)
        versions = f'torch {torch.__version__}, torchvision {torchvision.__version__}'
    return Finding('ok', f'{versions}: compiled operators run')


def check_nms(nms: Callable) -> None:
    """Of three boxes, the first two of which overlap, the first and the last are kept."""
    import torch

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    for device in find_devices():
        kept = nms(boxes.to(device), scores.to(device), 0.5).tolist()
        if kept != [0, 2]:
            raise RuntimeError(f'nms keeps boxes {kept} on {device}, not [0, 2]')


def check_opencv() -> Finding:
    """cv2 imports; without libGL only the files of the headless distribution do."""
    name, version = find_opencv() or ('no distribution', '')
    try:
        import cv2

        text = f'cv2 {cv2.__version__} imports'
    except Exception as error:
        headless = f'opencv-python-headless=={version}'.rstrip('=')
        text = f'{last_line(error)}; the files in place are those of {name}'
        raise Broken(text, reinstall(headless)) from error
    return Finding('ok', f'{text}; its files are those of {name}')


def check_mmcv() -> Finding:
    """mmcv imports, and its extension too if it has one."""
    with mended_by(reinstall(with_range('onedl-mmcv'))):
        import mmcv

        operators = find_operators()
        if operators == 'compiled':
            importlib.import_module('mmcv._ext')
    return Finding('ok', f'mmcv {mmcv.__version__} imports; its operators are {operators}')


def check_import() -> Finding:
    with mended_by(INSTALL):
        import mmdense
    return Finding('ok', f'import mmdense: {Path(mmdense.__file__).parent}')


def check_operators() -> Finding:
    """mmcv's operators run, compiled or through the bridge."""
    with mended_by(reinstall(with_range('onedl-mmcv'))):
        import torch
        from mmcv.ops import nms, roi_align

        check_nms(lambda *args: nms(*args)[1])
        for device in find_devices():
            feature = torch.ones(1, 1, 8, 8, device=device)
            rois = torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]], device=device)
            if not bool((roi_align(feature, rois, (2, 2), 1.0) == 1).all()):
                raise RuntimeError(f'roi_align of ones is not one on {device}')
    return Finding('ok', f'nms and roi_align of mmcv run on {" and ".join(find_devices())}')


def check_configs(package: str) -> Finding:
    """Configs are found by the package's name."""
    distribution = TOOLBOXES.get(package)
    name = f'{package}::{CONFIGS[package]}'
    with mended_by(reinstall(with_range(distribution)) if distribution else INSTALL):
        importlib.import_module(package)
        from mmengine.config import Config

        if not (find_folder(package) / '.mim' / 'configs').is_dir():
            raise FileNotFoundError(f"the package has no folder '{package}/.mim/configs'")
        Config.fromstring(f'_base_ = {name!r}\n', '.py')
    return Finding('ok', f'{name} is found')


def check_backbone(name: str) -> Finding:
    """A small variant is built by its name, and runs."""
    with mended_by(NEW_ENVIRONMENT):
        import torch
        from mmengine.registry import MODELS

        for device in find_devices():
            model = MODELS.build(dict(type=f'mmdense.{name}', arch=BACKBONES[name]))
            with torch.inference_mode():
                model.eval().to(device)(torch.zeros(1, 3, 64, 64, device=device))
    return Finding('ok', f'mmdense.{name} runs on {" and ".join(find_devices())}')


def check_disk() -> Finding:
    return Finding('note', f'{shutil.disk_usage(".").free / 1e9:.1f} GB are free in this folder')


def check_pins() -> Finding:
    """How the environment differs from the pinned one."""
    if not REQUIREMENTS.is_file():
        return Finding('note', 'no requirements.txt beside the tools')
    pins = re.findall(r'^([\w.-]+)==(\S+)', REQUIREMENTS.read_text(), re.MULTILINE)
    found = {name: find_version(name) for name, _ in pins}
    differing = [
        f'{name} {found[name]} ({pin})' for name, pin in pins if found[name] not in (pin, None)
    ]
    missing = list(found.values()).count(None)
    if not differing and not missing:
        return Finding('ok', f'all {len(pins)} versions are those of requirements.txt')
    text = f'other versions than in requirements.txt: {", ".join(differing) or "none"}'
    return Finding('note', f'{text}; {missing} are not installed')


class Check(NamedTuple):
    """What is looked into, and the checks that must be ok before."""

    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()


CHECKS = {
    'installation': Check(check_installed),
    'python': Check(check_python, ('installation',)),
    'requirements': Check(check_requirements, ('installation',)),
    'twins': Check(check_twins),
    'torch': Check(check_torch),
    'opencv': Check(check_opencv),
    'mmcv': Check(check_mmcv, ('torch', 'opencv')),
    'import': Check(check_import, ('installation', 'mmcv')),
    'operators': Check(check_operators, ('import',)),
    **{f'{name}::': Check(partial(check_configs, name), ('import',)) for name in CONFIGS},
    **{name: Check(partial(check_backbone, name), ('import',)) for name in BACKBONES},
    'disk': Check(check_disk),
    'pins': Check(check_pins),
}


def examine(check: Check, before: dict[str, Finding]) -> Finding:
    """Run a check; nothing that happens in it reaches the others."""
    unmet = [name for name in check.needs if before[name].status != 'ok']
    if unmet:
        return Finding('note', f'not checked, it needs {unmet[0]}')
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            return check.run()
    except Broken as error:
        return Finding('FAIL', str(error), error.remedy)
    except Exception as error:
        return Finding('FAIL', last_line(error), INSTALL)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Say what is wrong with the environment')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    say = partial(print, flush=True, file=io.StringIO() if args.json else sys.stdout)
    installed = list_installed()
    for name, text in installed.items():
        say(f'{name:22}{text}')
    say()
    found: dict[str, Finding] = {}
    for name, check in CHECKS.items():
        say(f'{name:22}', end='')  # before the check, lest it takes Python down
        found[name] = examine(check, found)
        say(f'{found[name].status:6}{found[name].text}')
        if found[name].remedy:
            say(f'{"":22}mend: {found[name].remedy}')
    failures = sum(finding.status == 'FAIL' for finding in found.values())
    say(f'\n{failures} failed; mend the first one first' if failures else '\nall is well')
    if args.json:
        checks = [dict(name=name, **finding._asdict()) for name, finding in found.items()]
        print(json.dumps(dict(installed=installed, checks=checks)))
    sys.exit(int(failures > 0))


if __name__ == '__main__':
    main()

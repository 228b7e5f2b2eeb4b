"""Say whether this environment runs mmdense, and which command mends what is wrong.

python tools/doctor.py
python tools/doctor.py --json

Starts in any Python, whatever is missing. The exit code is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

# All else is imported inside the checks, since it may be what is broken.

ONEDL = {  # import name -> distribution
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmseg': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
CONFIGS = {
    'mmdet': '_base_/models/mask-rcnn_r50_fpn.py',
    'mmseg': '_base_/models/upernet_r50.py',
    'mmpretrain': '_base_/default_runtime.py',
}
STACK = ('torch', 'torchvision', *ONEDL.values(), 'timm', 'numpy')
OPENCV = ('opencv-python-headless', 'opencv-python')  # both write the folder cv2
OPTIONAL = ('onnx', 'onnxruntime', 'onnxscript', 'transformers')
MAX_TRANSFORMERS = 4  # as in compat.py, which may be what is broken
COLLECT = """import json, mmengine.utils.dl_utils as utils
print(json.dumps(utils.collect_env(), default=str))"""
NOT_LISTED = ('numpy_random_seed', 'PyTorch compiling details')  # of what mmengine collects
PIP = f'{shlex.quote(sys.executable)} -m pip'
INSTALL = f'{PIP} install --no-cache-dir -e .'  # the cache may hold an mmcv for another torch
NEW_ENVIRONMENT = 'make env'


class Finding(NamedTuple):
    """What a check found."""

    status: str  # 'ok', 'FAIL' or 'note'
    text: str
    remedy: str = ''  # the command that mends a failure


class Check(NamedTuple):
    """What is looked into: it returns what is well, or raises; and what must be ok before."""

    run: Callable[[], str | Finding]
    remedy: str
    needs: tuple[str, ...] = ()


def find_version(*distributions: str) -> str | None:
    """The version of the first of these that is installed."""
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


# Runs this Python anew: what it prints is kept, and a crash stays there.
call = partial(subprocess.run, capture_output=True, text=True)


def list_installed() -> dict[str, str]:
    """Versions of distributions, and what mmengine says of the machine."""
    found = {name: find_version(name) or 'not installed' for name in (*STACK, *OPENCV, *OPTIONAL)}
    result = call([sys.executable, '-c', COLLECT])
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ['it crashes'])[-1]
        return found | {'Python': sys.version, 'machine': f'not known: {last}'}
    collected = json.loads(result.stdout.splitlines()[-1])
    return found | {name: str(collected[name]) for name in collected if name not in NOT_LISTED}


def reinstall(*distributions: str, deps: str = '--no-deps') -> str:
    """The command that writes files anew, within the ranges of setup.py."""
    lines = (metadata.requires('mmdense') or []) if find_version('mmdense') else []
    ranges = {re.match(r'[\w.-]+', line)[0]: line for line in lines if ';' not in line}
    wanted = ' '.join(shlex.quote(ranges.get(name, name)) for name in distributions)
    return ' '.join(f'{PIP} install --no-cache-dir {deps} --force-reinstall {wanted}'.split())


def try_requirements() -> str | Finding:
    """What mmdense and the stack below it require is there, as pip sees it."""
    result = call([sys.executable, '-m', 'pip', 'check'])
    lines = (result.stdout or result.stderr).strip().splitlines()
    wrong = [line for line in lines if line.split()[0] in ('mmdense', *STACK)]
    if result.returncode and wrong:
        raise RuntimeError(' '.join(wrong))
    return Finding('note' if result.returncode else 'ok', f'pip check: {lines[-1]}')


def try_twins() -> str | Finding:
    """No other distribution, as OpenMMLab's own ones, writes to the folders of the onedl ones."""
    owners = metadata.packages_distributions()
    twins = {name: set(owners.get(package, ())) - {name} for package, name in ONEDL.items()}
    ours = [name for name in twins if twins[name]]
    if not ours:
        return 'no other distribution has the names of the onedl ones'
    found = sorted(set().union(*twins.values()))
    return Finding(
        'FAIL',
        f'{", ".join(found)} is installed beside {", ".join(ours)}, and they share names',
        f'{PIP} uninstall -y {" ".join(found)} && {reinstall(*ours)}',
    )


def try_transformers() -> str | Finding:
    """transformers is one that mmpretrain can import, or none, or mmdense steps in."""
    version = find_version('transformers')
    if version is None:
        return 'transformers is not installed; only vision-language models need it'
    if int(version.split('.')[0]) <= MAX_TRANSFORMERS:
        return f'transformers {version}'
    return Finding(
        'note',
        f'transformers {version} is newer than mmpretrain can import: without mmdense its import '
        "ends in 'NoneType takes no arguments', with it the vision-language models are left out",
        f"{PIP} install 'transformers<{MAX_TRANSFORMERS + 1}'",
    )


def find_devices() -> list[str]:
    import torch

    return ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']


def try_nms(nms: Callable) -> str:
    """Of three boxes, the first two of which overlap, the first and the last are kept."""
    import torch

    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]]
    for device in find_devices():
        scores = torch.tensor([0.9, 0.8, 0.7], device=device)
        kept = nms(torch.tensor(boxes, device=device), scores, 0.5).tolist()
        if kept != [0, 2]:
            raise RuntimeError(f'nms keeps boxes {kept} on {device}, not [0, 2]')
    return f'operators run on {" and ".join(find_devices())}'


def try_torch() -> str:
    """torch and torchvision are of one build: torchvision's compiled operators run."""
    import torch
    import torchvision

    found = try_nms(torchvision.ops.nms)
    return f'torch {torch.__version__}, torchvision {torchvision.__version__}: {found}'


def try_mmcv() -> str:
    """mmcv imports, and its extension too if it has one."""
    import mmcv

    spec = importlib.util.find_spec('mmcv._ext')
    if spec is None or spec.origin is None:  # mmdense's own has no file
        return f'mmcv {mmcv.__version__} imports; its operators are bridged by mmdense'
    importlib.import_module('mmcv._ext')
    return f'mmcv {mmcv.__version__} imports; its operators are compiled'


def try_import(package: str) -> str:
    """A package imports, and is more than the empty folder that an uninstallation may leave."""
    module = importlib.import_module(package)
    return f'{package} {module.__version__} in {Path(module.__file__).parent}'


def try_operators() -> str:
    """mmcv's operators run, compiled or through the bridge."""
    from mmcv.ops import nms

    return f"mmcv's {try_nms(lambda *args: nms(*args)[1])}"


def try_config(package: str, config: str) -> str:
    """A config is found by its package's name."""
    importlib.import_module(package)
    from mmengine.config import Config

    Config.fromstring(f'_base_ = "{package}::{config}"\n', '.py')
    return f'{package}::{config} is found'


def try_backbones() -> str:
    """The first variant of every family is built by its name, and runs."""
    import torch
    from mmengine.registry import MODELS

    from mmdense.families import FAMILIES

    for family in FAMILIES:
        cfg = dict(type=family.type, arch=next(iter(family.backbone.arch_zoo)))
        for device in find_devices():
            model = MODELS.build(cfg).eval().to(device)
            with torch.inference_mode():
                model(torch.zeros(1, 3, 64, 64, device=device))
    names = ', '.join(family.backbone.__name__ for family in FAMILIES)
    return f'{names} run on {" and ".join(find_devices())}'


# Without libGL, only the files of this one do.
HEADLESS = '=='.join(filter(None, (OPENCV[0], find_version(*OPENCV))))
CHECKS = {
    'installation': Check(lambda: f'mmdense {metadata.version("mmdense")}', INSTALL),
    'requirements': Check(try_requirements, INSTALL, ('installation',)),
    'twins': Check(try_twins, INSTALL),
    'transformers': Check(try_transformers, ''),
    'torch': Check(try_torch, reinstall('torch', 'torchvision', 'numpy', deps='')),
    'opencv': Check(partial(try_import, 'cv2'), reinstall(HEADLESS)),
    'mmcv': Check(try_mmcv, reinstall('onedl-mmcv'), ('torch', 'opencv')),
    'import': Check(partial(try_import, 'mmdense'), INSTALL, ('installation', 'mmcv')),
    'operators': Check(try_operators, reinstall('onedl-mmcv'), ('import',)),
    'mmdense::': Check(partial(try_config, 'mmdense', '_base_/ema.py'), INSTALL, ('import',)),
    **{
        f'{name}::': Check(partial(try_config, name, path), reinstall(ONEDL[name]), ('import',))
        for name, path in CONFIGS.items()
    },
    'backbones': Check(try_backbones, NEW_ENVIRONMENT, ('import',)),
}


def examine(check: Check, before: dict[str, Finding]) -> Finding:
    """Run a check; nothing that happens in it reaches the others."""
    unmet = [name for name in check.needs if before[name].status != 'ok']
    if unmet:
        return Finding('note', f'not checked, it needs {unmet[0]}')
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            found = check.run()
        return found if isinstance(found, Finding) else Finding('ok', found)
    except Exception as error:
        text = f'{type(error).__name__}: {error}'.strip().splitlines()[-1]
        return Finding('FAIL', text, check.remedy)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Say what is wrong with the environment')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main() -> None:
    args = make_parser().parse_args()
    say = partial(print, flush=True, file=io.StringIO() if args.json else sys.stdout)
    installed = list_installed()
    for name, text in installed.items():
        say(f'{name:22} {text}')
    say()
    found: dict[str, Finding] = {}
    for name, check in CHECKS.items():
        say(f'{name:22}', end=' ')  # before the check, lest it takes Python down
        found[name] = examine(check, found)
        say(f'{found[name].status:5} {found[name].text}')
        if found[name].remedy:
            say(f'{"":22} mend: {found[name].remedy}')
    failures = sum(finding.status == 'FAIL' for finding in found.values())
    say(f'\n{failures} failed; mend the first one first' if failures else '\nall is well')
    if args.json:
        checks = [dict(name=name, **finding._asdict()) for name, finding in found.items()]
        print(json.dumps(dict(installed=installed, checks=checks)))
    sys.exit(int(failures > 0))


if __name__ == '__main__':
    main()

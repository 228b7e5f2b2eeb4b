"""What holds in a process that has imported the package and nothing else.

One such process is started; each program runs in a fork of it, as if it had been started for it.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

NAMES = {
    'MODELS': [
        'BoxTTAModel',
        'FCViT',
        'GroupMixFormer',
        'MSFViT',
        'PaCaSegHead',
        'PaCaViT',
        'TiledModel',
        'Timm',
    ],
    'HOOKS': [
        'CheckInstancesHook',
        'CheckpointHook',
        'CompileBackboneHook',
        'FiniteHook',
        'InterruptHook',
        'MeanLossHook',
        'OptimizeHook',
        'ProgressHook',
        'RegroupHook',
        'ResumeStateHook',
        'ShardedCheckpointHook',
    ],
    'METRICS': ['ReportedAccuracy', 'ReportedCocoMetric', 'ReportedIoUMetric'],
    'MODEL_WRAPPERS': ['FullyShardedModel'],
    'LOOPS': ['EpochBasedTrainLoop', 'IterBasedTrainLoop'],
    'OPTIM_WRAPPERS': ['CPUAmpOptimWrapper'],
    'OPTIM_WRAPPER_CONSTRUCTORS': [
        'GroupedOptimWrapperConstructor',
        'LayerDecayOptimWrapperConstructor',
    ],
    'WEIGHT_INITIALIZERS': ['Pretrained'],
}
PROGRAMS = {
    'names': f"""
import json
from mmengine import registry
from mmengine.registry import DefaultScope

names = {NAMES}
found = {{}}
for scope in ('mmengine', 'mmdet', 'mmseg', 'mmpretrain'):
    with DefaultScope.overwrite_default_scope(scope):
        for kind, entries in names.items():
            for name in entries:
                cls = getattr(registry, kind).get('mmdense.' + name)
                found[f'{{scope}} {{kind}} {{name}}'] = cls and cls.__module__
from mmdense import registry as ours
every = {{kind: sorted(getattr(ours, kind).module_dict) for kind in names}}
print(json.dumps(dict(found=found, every=every)))
""",
    'toolboxes': """
import sys
print([name for name in ('mmdet', 'mmseg') if name in sys.modules])
""",
    'data sets': """
from mmengine.config import Config
from mmdense.engine.data import prepare_loading
for scope in ('mmdet', 'mmseg', 'mmpretrain'):
    prepare_loading(Config(dict(default_scope=scope)))
import mmdet.datasets, mmseg.datasets, mmpretrain.datasets
""",
    'memory': """
import resource
import torch
from mmdense.engine.launch import keep_memory

def count():
    torch.zeros(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(count())
keep_memory()
print(count())
""",
}
RUN_EACH = """
import json, os, sys, traceback
import mmdense

for number, program in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if not child:
        os.dup2(os.open(str(number), os.O_WRONLY | os.O_CREAT), 1)
        try:
            exec(program, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f'program {number} failed')
"""


@pytest.fixture(scope='module')
def said(tmp_path_factory) -> dict[str, str]:
    """What each program has printed."""
    folder = tmp_path_factory.mktemp('said')
    path = os.pathsep.join([str(ROOT.parent), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RUN_EACH],
        input=json.dumps(list(PROGRAMS.values())),
        env=dict(os.environ, PYTHONPATH=path),
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr
    return {name: Path(folder, str(i)).read_text() for i, name in enumerate(PROGRAMS)}


@pytest.mark.slow
def test_every_name_is_found_in_every_toolbox(said):
    last = json.loads(said['names'].strip().splitlines()[-1])
    assert len(last['found']) == 4 * sum(map(len, NAMES.values()))
    assert all((found or '').startswith('mmdense.') for found in last['found'].values()), last
    assert last['every'] == NAMES


def test_the_package_alone_imports_no_toolbox(said):
    assert said['toolboxes'] == '[]\n'


def test_data_sets_are_imported_quietly(said):
    """What the toolboxes print at their import does not come before a tool's result."""
    assert said['data sets'] == ''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='of the allocator of glibc')
def test_memory_is_kept(said):
    """Large tensors, one after the other, cost the pages of the first."""
    before, after = map(int, said['memory'].split()[-2:])
    assert after < before / 10

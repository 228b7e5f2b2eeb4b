"""Every name of this package is found after ``import mmdense`` alone, in every toolbox."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdense

NAMES = {
    'MODELS': [
        'BoxTTAModel',
        'FCViT',
        'GroupMixFormer',
        'MSFViT',
        'PaCaSegHead',
        'PaCaViT',
    ],
    'HOOKS': [
        'CheckInstancesHook',
        'CheckpointHook',
        'CompileBackboneHook',
        'FiniteHook',
        'InterruptHook',
        'MeanLossHook',
        'RegroupHook',
        'ResumeStateHook',
        'ShardedCheckpointHook',
    ],
    'MODEL_WRAPPERS': ['FullyShardedModel'],
    'METRICS': ['ReportedAccuracy', 'ReportedCocoMetric', 'ReportedIoUMetric'],
    'LOOPS': ['EpochBasedTrainLoop', 'IterBasedTrainLoop'],
    'OPTIM_WRAPPERS': ['CPUAmpOptimWrapper'],
    'OPTIM_WRAPPER_CONSTRUCTORS': [
        'GroupedOptimWrapperConstructor',
        'LayerDecayOptimWrapperConstructor',
    ],
    'WEIGHT_INITIALIZERS': ['Pretrained'],
}
PROGRAM = """
import json, sys
import mmdense
from mmengine import registry
from mmengine.registry import DefaultScope

names = json.loads(sys.argv[1])
found = {}
for scope in ('mmengine', 'mmdet', 'mmseg', 'mmpretrain'):
    with DefaultScope.overwrite_default_scope(scope):
        for kind, entries in names.items():
            for name in entries:
                cls = getattr(registry, kind).get('mmdense.' + name)
                found[f'{scope} {kind} {name}'] = cls and cls.__module__
from mmdense import registry as ours
every = {kind: sorted(getattr(ours, kind).module_dict) for kind in names}
print(json.dumps(dict(found=found, every=every)))
"""


def test_names_resolve_in_a_fresh_process():
    root = Path(mmdense.__file__).parent.parent
    env = dict(
        os.environ, PYTHONPATH=os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
    )
    command = [sys.executable, '-W', 'ignore', '-c', PROGRAM, json.dumps(NAMES)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd='/')
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(said['found']) == 4 * sum(map(len, NAMES.values()))
    assert all((found or '').startswith('mmdense.') for found in said['found'].values()), said
    assert said['every'] == NAMES

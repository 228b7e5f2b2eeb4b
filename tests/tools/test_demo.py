"""tools/demo.py with stand-ins of the tools that it calls, which take no time."""

import os
import shutil
import sys

import pytest
from helpers import ROOT

from mmdense.errors import UserError
from mmdense.tools import demo

NOTE = """
import json, os, sys
from pathlib import Path
def note(name):
    with open('calls', 'a') as calls:
        calls.write(' '.join([name, *sys.argv[1:], os.environ.get('OMP_NUM_THREADS', '-')]) + '\\n')
"""
TRAIN = """
note('train')
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
if folder.name == os.environ.get('BROKEN'):
    sys.exit('error: no space left')
metrics = dict(zip(('accuracy/top1', 'mIoU'), (97.5, 61.25)))
metrics.update({f'coco/{t}_mAP{s}': v for t, s, v in
    (('bbox', '', .5), ('bbox', '_50', .75), ('segm', '', .25), ('segm', '_50', .625))})
log = folder / 'now' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
rows = dict(loss=1.0, iter=1, step=1), dict(metrics, step=2)
log.write_text(''.join(json.dumps(row) + '\\n' for row in rows))
(folder / 'epoch_2.pth').touch()
(folder / 'last_checkpoint').write_text('epoch_2.pth')
"""
PREDICT = """
note('predict')
pictures = Path(sys.argv[-1]) / 'vis'
pictures.mkdir(parents=True)
(pictures / 'a.png').touch()
"""
VISUALIZE = """
note('visualize')
pictures = Path(sys.argv[-1])
pictures.mkdir(parents=True)
(pictures / 'b.png').touch()
"""
SCENES = """
note('scenes')
folder = Path(sys.argv[-1])
(folder / 'images' / 'val').mkdir(parents=True)
for i in range(8):
    (folder / 'images' / 'val' / f'{i}.png').touch()
(folder / '.digit_scenes.json').write_text('{}')
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout of the configs, and of tools that only note their calls."""
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    tools = dict(train=TRAIN, predict=PREDICT, visualize=VISUALIZE)
    scripts = {f'tools/{name}.py': text for name, text in tools.items()}
    for path, text in (scripts | {'data/digit_scenes.py': SCENES}).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(NOTE + text)
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return tmp_path


@pytest.fixture
def call(place, monkeypatch):
    def run(*flags: str) -> list[str]:
        """What was called."""
        monkeypatch.setattr(sys, 'argv', ['demo.py', *flags])
        (place / 'calls').unlink(missing_ok=True)
        demo.main()
        return (place / 'calls').read_text().splitlines()

    return run


def names(calls: list[str]) -> list[str]:
    return [' '.join(call.split()[:2]) for call in calls]


TRAININGS = [
    'train configs/digits/mask_rcnn_paca_digits.py',
    'train configs/digits/paca_digits.py',
    'train configs/digits/upernet_paca_digits.py',
]
DRAWINGS = [
    'predict configs/digits/mask_rcnn_paca_digits.py',
    'predict configs/digits/upernet_paca_digits.py',
    'visualize configs/digits/mask_rcnn_paca_digits.py',
]


def test_the_whole_way(call, capfd):
    """Pretraining first, with all cores; what starts from it shares them; six held-out scenes."""
    calls = call()
    assert names(calls)[:2] == ['scenes --out', TRAININGS[1]]
    assert sorted(names(calls)) == sorted(['scenes --out', *TRAININGS, *DRAWINGS])
    threads = {name: called.split()[-1] for name, called in zip(names(calls), calls)}
    half = str(max(1, (os.cpu_count() or 1) // 2))
    assert [threads[name] for name in TRAININGS] == [half, '-', half]
    drawn = next(called for called in calls if called.startswith(DRAWINGS[0]))
    assert drawn.count('/images/val/') == 6
    assert 'work_dirs/mask_rcnn_paca_digits/epoch_2.pth' in drawn
    lines = map(str.split, capfd.readouterr().out.splitlines())
    rows = {line[0]: line for line in lines if line}
    assert rows['pretraining'][1] == '0.975' and rows['segmentation'][1] == '0.613'
    assert rows['detection'][1:5] == ['0.500', '0.750', '0.250', '0.625']


def test_what_is_done_is_drawn_again_alone(call):
    call()
    assert sorted(names(call())) == DRAWINGS
    shutil.rmtree('work_dirs/upernet_paca_digits')
    assert sorted(names(call())) == sorted([*DRAWINGS, TRAININGS[2]])


def test_from_scratch_too(call):
    scratch = [called for called in call('--scratch') if 'digits_scratch' in called]
    assert len(scratch) == 1 and '--cfg-options model.backbone.init_cfg=None' in scratch[0]


def test_a_failure_is_told_and_ends_only_what_starts_from_it(call, place, monkeypatch):
    monkeypatch.setenv('BROKEN', 'mask_rcnn_paca_digits')
    with pytest.raises(UserError, match='mask_rcnn_paca_digits failed: error: no space left'):
        call()
    assert (place / 'work_dirs/demo/segmentation/vis/a.png').is_file()
    shutil.rmtree(place / 'work_dirs')
    monkeypatch.setenv('BROKEN', 'paca_digits')
    with pytest.raises(UserError, match='paca_digits failed: error: no space left'):
        call()
    assert names((place / 'calls').read_text().splitlines()) == [TRAININGS[1]]

"""The whole way on two CPU cores: make data, pretrain, fine-tune, evaluate, draw.

    python tools/demo.py              # or: make demo
    python tools/demo.py --scratch    # or: make demo-scratch, detection also without pretraining

Finished steps are kept: a second call runs only what is missing or whose inputs have changed.
Detection and segmentation, which both start from the pretraining, run at the same time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.data.digit_scenes import MARKER
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.study.queue import Queue
from mmdense.study.steps import Result, Step

ROOT = Path(__file__).resolve().parent.parent
DATA = Path('data/digit_scenes')
MADE = DATA / MARKER
PICTURES = Path('work_dirs/demo')
NUM_PICTURES = 6
BOX_AND_MASK = {
    'box AP': 'coco/bbox_mAP',
    'box AP50': 'coco/bbox_mAP_50',
    'mask AP': 'coco/segm_mAP',
    'mask AP50': 'coco/segm_mAP_50',
}


def make_step(title: str, name: str, metrics: dict[str, str], needs: Step | None = None) -> Step:
    """The training of a config of configs/digits; what needs another has half of the cores."""
    config, folder = Path('configs/digits', f'{name}.py'), Path('work_dirs', name)
    threads = max(1, (os.cpu_count() or 1) // 2)
    variables = {'OMP_NUM_THREADS': str(threads)} if needs else {}
    return Step(title, config, folder, metrics, (MADE,), needs, variables=variables)


PRETRAIN = make_step('pretraining', 'paca_digits', {'top-1': 'accuracy/top1'})
DETECT = make_step('detection', 'mask_rcnn_paca_digits', BOX_AND_MASK, PRETRAIN)
SEGMENT = make_step('segmentation', 'upernet_paca_digits', {'mIoU': 'mIoU'}, PRETRAIN)
SCRATCH = replace(
    DETECT,
    title='detection, from scratch',
    folder=Path('work_dirs/mask_rcnn_paca_digits_scratch'),
    needs=None,
    options=('--cfg-options', 'model.backbone.init_cfg=None'),
)


def run_tool(*command: str) -> None:
    """Run another script to its end.

    Raises:
        UserError: When it fails.
    """
    if subprocess.run([sys.executable, *command]).returncode:
        raise UserError(f'python {" ".join(command)} failed')


def draw(step: Step) -> None:
    """A step's predictions on held-out scenes; of a detector's backbone the clusters on one too."""
    scenes = sorted(map(str, (DATA / 'images' / 'val').glob('*.png')))[:NUM_PICTURES]
    model = (str(step.config), str(step.checkpoint))
    run_tool('tools/predict.py', *model, *scenes, '--out-dir', str(PICTURES / step.title))
    if step is DETECT:
        clusters = ('--kinds', 'clusters', '--max-maps', '6', '--out-dir', PICTURES / 'clusters')
        run_tool('tools/visualize.py', *model, scenes[-1], *map(str, clusters))


def print_table(rows: dict[str, dict]) -> None:
    """A row per step: its metrics and wall time, and how many pretrained tensors it got."""
    columns = ['top-1', *BOX_AND_MASK, 'mIoU']
    titles = ''.join(f'{column:>10}' for column in columns)
    print(f'\n{"step":24}{titles}{"tensors":>14}{"seconds":>9}')
    for title, row in rows.items():
        metrics = row.get('metrics', {})
        values = ''.join(f'{metrics[c]:10.3f}' if c in metrics else ' ' * 10 for c in columns)
        print(f'{title:24}{values}{row.get("loaded") or "":>14}{row["seconds"]:9.0f}')


def main() -> None:
    parser = argparse.ArgumentParser(description='Pretrain, fine-tune, evaluate and draw')
    parser.add_argument(
        '--scratch', action='store_true', help='train the detector without pretraining as well'
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    start = time.time()
    if not MADE.is_file():
        run_tool('data/digit_scenes.py', '--out', str(DATA))
    rows = {'data': dict(seconds=time.time() - start)}
    steps = (PRETRAIN, DETECT, *([SCRATCH] if args.scratch else []), SEGMENT)
    steps = {step.title: step for step in steps}
    queue = Queue((sys.executable, 'tools/train.py'), workers=2, verbose=True)
    shutil.rmtree(PICTURES, ignore_errors=True)

    def keep(title: str, result: Result) -> None:
        rows[title] = result._asdict()
        if steps[title] in (DETECT, SEGMENT):
            draw(steps[title])

    failures = queue.run(steps, keep)
    if failures:
        raise UserError('; '.join(failures))
    rows['this call'] = dict(seconds=time.time() - start)
    print_table(rows)
    print('\nheld-out scenes with the predictions drawn on them:')
    for picture in sorted([*PICTURES.glob('*/vis/*.png'), *PICTURES.glob('clusters/*.png')]):
        print(f'  {picture}')


if __name__ == '__main__':
    launch.run(main)

"""The whole way on two CPU cores: make data, pretrain, fine-tune, evaluate, draw.

    python tools/demo.py              # or: make demo
    python tools/demo.py --scratch    # or: make demo-scratch, detection also without pretraining

Finished steps are kept: a second call runs only what is missing or whose inputs have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.logs import load_runs
from mmdense.errors import UserError
from mmdense.files import replacing

ROOT = Path(__file__).resolve().parent.parent
DATA = Path('data/digit_scenes')
WORK = Path('work_dirs')
PICTURES = WORK / 'demo'
NUM_PICTURES = 6
CODE = ('.', 'backbones', 'heads', 'families', 'serialization', 'engine')  # what a run depends on
PROGRESS = re.compile(r'Epoch\(train\)\s+(\[\d+\]\[ *\d+/\d+\]).* eta: (\S+).* loss: (\S+)')
LOADED = re.compile(r'loaded (\d+ of \d+) tensors')


@dataclass(frozen=True)
class Step:
    """One training with its evaluation.

    Args:
        title: The row of the table.
        config: Name of the config below configs/digits.
        metrics: Column of the table -> key in mmengine's log.
        work_dir: Where it goes below work_dirs.
        needs: The step whose weights it starts from.
        options: Further arguments of tools/train.py.
    """

    title: str
    config: str
    metrics: dict[str, str]
    work_dir: str
    needs: Step | None = None
    options: tuple[str, ...] = ()

    @property
    def config_path(self) -> Path:
        return Path('configs/digits', f'{self.config}.py')

    @property
    def folder(self) -> Path:
        return WORK / self.work_dir

    @property
    def checkpoint(self) -> Path:
        """The last one that mmengine wrote."""
        return self.folder / Path((self.folder / 'last_checkpoint').read_text().strip()).name

    @property
    def model(self) -> tuple[str, str]:
        """What the tools ask for."""
        return str(self.config_path), str(self.checkpoint)


BOX_AND_MASK = {
    'box AP': 'coco/bbox_mAP',
    'box AP50': 'coco/bbox_mAP_50',
    'mask AP': 'coco/segm_mAP',
    'mask AP50': 'coco/segm_mAP_50',
}
PRETRAIN = Step('pretraining', 'paca_digits', {'top-1': 'accuracy/top1'}, 'paca_digits')
DETECT = Step(
    'detection', 'mask_rcnn_paca_digits', BOX_AND_MASK, 'mask_rcnn_paca_digits', needs=PRETRAIN
)
SEGMENT = Step(
    'segmentation', 'upernet_paca_digits', {'mIoU': 'mIoU'}, 'upernet_paca_digits', needs=PRETRAIN
)
SCRATCH = Step(
    'detection, from scratch',
    'mask_rcnn_paca_digits',
    BOX_AND_MASK,
    'mask_rcnn_paca_digits_scratch',
    options=('--cfg-options', 'model.backbone.init_cfg=None'),
)


def make_data() -> None:
    """Make the digit scenes unless they are there."""
    if not (DATA / '.digit_scenes.json').is_file():
        run_tool('data/digit_scenes.py', '--out', str(DATA))


def run_step(step: Step) -> dict:
    """Train and evaluate, or return the result of an earlier call with the same inputs."""
    result_file = step.folder / 'demo.json'
    inputs = fingerprint(step)
    if result_file.is_file():
        result = json.loads(result_file.read_text())
        if result['inputs'] == inputs and step.checkpoint.is_file():
            print(f'{step.title}: done before ({step.folder})')
            return result
    print(f'{step.title}: python tools/train.py {step.config_path} {" ".join(step.options)}')
    begin = time.time()
    loaded = train(step)
    result = dict(inputs=inputs, seconds=time.time() - begin, loaded=loaded, metrics=measured(step))
    with replacing(result_file) as part:
        part.write_text(json.dumps(result, indent=1))
    return result


def fingerprint(step: Step) -> str:
    """Changes with the config, the code, the data and the weights that the step starts from."""
    parts = [
        Config.fromfile(step.config_path).pretty_text,
        *step.options,
        (DATA / '.digit_scenes.json').read_text(),
        *(path.read_text() for folder in CODE for path in sorted(Path(folder).glob('*.py'))),
    ]
    if step.needs:
        parts.append(fingerprint(step.needs))
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()


def train(step: Step) -> str | None:
    """Run tools/train.py and show its progress; how many tensors it has loaded.

    Everything that it says goes to ``train.log``.
    """
    command = [sys.executable, 'tools/train.py', str(step.config_path)]
    command += ['--work-dir', str(step.folder), *step.options]
    log_file = step.folder / 'train.log'
    log_file.parent.mkdir(parents=True, exist_ok=True)
    line, loaded = 'no output', None
    with (
        log_file.open('w') as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            if progress := PROGRESS.search(line):
                print('  epoch {} eta {} loss {}'.format(*progress.groups()), flush=True)
            elif found := LOADED.search(line):
                loaded = found[1]
                print(f'  {line[found.start() :].strip()}', flush=True)
    if process.returncode:
        raise UserError(f'{" ".join(command)} failed: {line.strip()} (all of it: {log_file})')
    return loaded


def run_tool(*command: str) -> None:
    """Run another script to its end.

    Raises:
        UserError: When it fails.
    """
    if subprocess.run([sys.executable, *command]).returncode:
        raise UserError(f'python {" ".join(command)} failed')


def measured(step: Step) -> dict[str, float]:
    """The metrics of the last evaluation as fractions; mmpretrain's and mmseg's come in percent."""
    (run,) = load_runs([str(step.folder)])
    return {
        column: run.val[-1][key] / (1 if key.startswith('coco/') else 100)
        for column, key in step.metrics.items()
    }


def draw_pictures() -> list[Path]:
    """Predictions on held-out scenes, and the clusters of the detector's backbone on one."""
    scenes = sorted(map(str, (DATA / 'images' / 'val').glob('*.png')))[:NUM_PICTURES]
    shutil.rmtree(PICTURES, ignore_errors=True)
    commands = [
        ('tools/predict.py', *step.model, *scenes, '--out-dir', str(PICTURES / step.title))
        for step in (DETECT, SEGMENT)
    ]
    options = ['--kinds', 'clusters', '--max-maps', '6', '--out-dir', str(PICTURES / 'clusters')]
    commands.append(('tools/visualize.py', *DETECT.model, scenes[-1], *options))
    with ThreadPoolExecutor(2) as pool:  # each takes most of its time to start
        list(pool.map(lambda command: run_tool(*command), commands))
    return sorted([*PICTURES.glob('*/vis/*.png'), *PICTURES.glob('clusters/*.png')])


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
    make_data()
    rows = {'data': dict(seconds=time.time() - start)}
    for step in (PRETRAIN, DETECT, *([SCRATCH] if args.scratch else []), SEGMENT):
        rows[step.title] = run_step(step)
    begin = time.time()
    pictures = draw_pictures()
    rows['pictures'] = dict(seconds=time.time() - begin)
    rows['this call'] = dict(seconds=time.time() - start)
    print_table(rows)
    print('\nheld-out scenes with the predictions drawn on them:')
    for picture in pictures:
        print(f'  {picture}')


if __name__ == '__main__':
    launch.run(main)

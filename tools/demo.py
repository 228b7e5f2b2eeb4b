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
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
DATA = Path('data/digit_scenes')
WORK = Path('work_dirs')
PICTURES = WORK / 'demo'
NUM_PICTURES = 6
CODE = ('backbones', 'heads', 'serialization', 'engine')  # what a training depends on
PROGRESS = re.compile(r'Epoch\(train\)\s+(\[\d+\]\[ *\d+/\d+\]).* eta: (\S+).* loss: (\S+)')


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


def main() -> None:
    args = parse_args()
    os.chdir(ROOT)
    start = time.time()
    seconds = {'data': make_data()}
    steps = [PRETRAIN, DETECT, *([SCRATCH] if args.scratch else []), SEGMENT]
    results = {step.title: run_step(step) for step in steps}
    begin = time.time()
    pictures = draw_pictures()
    seconds['pictures'] = time.time() - begin
    print_table(steps, results, seconds, time.time() - start)
    print('\nheld-out scenes with the predictions drawn on them:')
    for picture in pictures:
        print(f'  {picture}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Pretrain, fine-tune, evaluate and draw')
    parser.add_argument(
        '--scratch', action='store_true', help='train the detector without pretraining as well'
    )
    return parser.parse_args()


def make_data() -> float:
    """Make the digit scenes unless they are there; the seconds it took."""
    begin = time.time()
    if not (DATA / '.digit_scenes.json').is_file():
        run_command([sys.executable, 'data/digit_scenes.py', '--out', str(DATA)])
    return time.time() - begin


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
    log = train(step)
    result = dict(inputs=inputs, seconds=time.time() - begin, **read_log(step, log))
    partial = result_file.with_suffix('.partial')
    partial.write_text(json.dumps(result, indent=1))
    partial.replace(result_file)
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


def train(step: Step) -> str:
    """Run tools/train.py, showing its progress; everything it says goes to ``train.log``."""
    command = [sys.executable, 'tools/train.py', str(step.config_path)]
    command += ['--work-dir', str(step.folder), *step.options]
    return run_command(command, step.folder / 'train.log')


def run_command(command: list[str], log_file: Path | None = None) -> str:
    """Run a command to its end; with a log file, show only its progress and return its output.

    Raises:
        UserError: When the command fails.
    """
    if log_file is None:
        if subprocess.run(command).returncode:
            raise UserError(f'{" ".join(command)} failed')
        return ''
    log_file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with (
        log_file.open('w') as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            lines.append(line)
            progress = PROGRESS.search(line)
            if progress:
                print('  epoch {} eta {} loss {}'.format(*progress.groups()), flush=True)
            elif 'tensors from' in line:
                print('  ' + line.rsplit(' - ', 1)[-1].strip(), flush=True)
    if process.returncode:
        last = lines[-1].strip() if lines else 'no output'
        raise UserError(f'{" ".join(command)} failed: {last} (all of it: {log_file})')
    return ''.join(lines)


def read_log(step: Step, output: str) -> dict:
    """The metrics of the last evaluation and the count of loaded tensors, from what was printed."""
    scalars = sorted(step.folder.glob('*/vis_data/scalars.json'))[-1]
    metrics = {}
    for line in scalars.read_text().splitlines():
        metrics.update(json.loads(line))
    loaded = re.search(r'loaded (\d+ of \d+) tensors', output)
    return dict(
        metrics={column: scale(metrics[key], key) for column, key in step.metrics.items()},
        loaded=loaded[1] if loaded else None,
    )


def scale(value: float, key: str) -> float:
    """Metrics as fractions; mmpretrain's and mmseg's come in percent."""
    return value if key.startswith('coco/') else value / 100


def draw_pictures() -> list[Path]:
    """Predictions on held-out scenes, and the clusters of the detector's backbone on one."""
    scenes = sorted(map(str, (DATA / 'images' / 'val').glob('*.png')))[:NUM_PICTURES]
    shutil.rmtree(PICTURES, ignore_errors=True)
    for step in (DETECT, SEGMENT):
        model = [str(step.config_path), str(step.checkpoint)]
        folder = str(PICTURES / step.title)
        run_command([sys.executable, 'tools/predict.py', *model, *scenes, '--out-dir', folder])
    model = [str(DETECT.config_path), str(DETECT.checkpoint), scenes[-1]]
    folder = str(PICTURES / 'clusters')
    options = ['--kinds', 'clusters', '--max-maps', '6', '--out-dir', folder]
    run_command([sys.executable, 'tools/visualize.py', *model, *options])
    return sorted([*PICTURES.glob('*/vis/*.png'), *PICTURES.glob('clusters/*.png')])


def print_table(
    steps: list[Step], results: dict[str, dict], seconds: dict[str, float], total: float
) -> None:
    """One row per step: its metrics and wall time, and how many pretrained tensors it got."""
    columns = ['top-1', *BOX_AND_MASK, 'mIoU']
    blank = ' ' * (10 * len(columns) + 14)
    titles = ''.join(f'{column:>10}' for column in columns)
    print(f'\n{"step":24}{titles}{"tensors":>14}{"seconds":>9}')
    print(f'{"data":24}{blank}{seconds["data"]:9.0f}')
    for step in steps:
        result = results[step.title]
        values = ''.join(
            f'{result["metrics"][c]:10.3f}' if c in result['metrics'] else ' ' * 10 for c in columns
        )
        print(f'{step.title:24}{values}{result["loaded"] or "":>14}{result["seconds"]:9.0f}')
    print(f'{"pictures":24}{blank}{seconds["pictures"]:9.0f}')
    print(f'{"this call":24}{blank}{total:9.0f}')


if __name__ == '__main__':
    launch.run(main)

"""Trainings as steps of a longer way: finished ones are kept, and run again when inputs change.

Each is a process of its own, a call of ``tools/train.py``; what it says goes to ``train.log`` in
its work dir, and what came of it to ``step.json``.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..errors import UserError
from ..files import replacing
from .logs import load_runs
from .saving import find_last_checkpoint
from .toolboxes import find_toolbox

PACKAGE = Path(__file__).resolve().parent.parent
CODE = ('.', 'backbones', 'heads', 'families', 'serialization', 'engine')  # what a run depends on
PROGRESS = re.compile(r'Epoch\(train\)\s+(\[\d+\]\[ *\d+/\d+\]).* eta: (\S+).* loss: (\S+)')
LOADED = re.compile(r'loaded (\d+ of \d+) tensors')


@dataclass(frozen=True)
class Step:
    """One training with its evaluation.

    Args:
        title: What people call it.
        config: Of the training.
        folder: Its work dir.
        metrics: Title of a metric -> its key in mmengine's log.
        data: Files that say which data it sees; others mean another training.
        needs: The step whose weights it starts from.
        options: Further arguments of ``tools/train.py``.
    """

    title: str
    config: Path
    folder: Path
    metrics: dict[str, str]
    data: tuple[Path, ...] = ()
    needs: Step | None = None
    options: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path | None:
        """The last one that mmengine wrote, if it is there."""
        return find_last_checkpoint(self.folder)

    @property
    def inputs(self) -> str:
        """Changes with the config, the code, the data and the weights that the step starts from."""
        parts = [
            Config.fromfile(self.config).pretty_text,
            *self.options,
            *(path.read_text() for path in self.data),
            *(path.read_text() for path in list_code()),
        ]
        if self.needs:
            parts.append(self.needs.inputs)
        return hashlib.sha256('\0'.join(parts).encode()).hexdigest()


def list_code() -> list[Path]:
    """The files that a run depends on."""
    files = (path for room in CODE for path in sorted((PACKAGE / room).glob('*.py')))
    return [path for path in files if path.name != 'setup.py']


class Result(NamedTuple):
    """What came of a step: its metrics as fractions, how many pretrained tensors it got."""

    inputs: str
    seconds: float
    loaded: str | None
    metrics: dict[str, float]


def run_step(step: Step, command: Sequence[str]) -> Result:
    """Train and evaluate, or return the result of an earlier call with the same inputs.

    Args:
        step: What to do.
        command: What calls ``tools/train.py``.

    Raises:
        UserError: When the training fails.
    """
    file = step.folder / 'step.json'
    inputs = step.inputs
    if file.is_file():
        result = Result(**json.loads(file.read_text()))
        if result.inputs == inputs and step.checkpoint:
            print(f'{step.title}: done before ({step.folder})')
            return result
    arguments = [str(step.config), *step.options]
    print(f'{step.title}: {" ".join(["python", *command[1:], *arguments])}', flush=True)
    begin = time.time()
    loaded = train(step, [*command, *arguments, '--work-dir', str(step.folder)])
    result = Result(inputs, time.time() - begin, loaded, read_metrics(step))
    with replacing(file) as part:
        part.write_text(json.dumps(result._asdict(), indent=1))
    return result


def train(step: Step, command: Sequence[str]) -> str | None:
    """Run a training and show its progress; how many tensors it has loaded.

    Raises:
        UserError: When it fails.
    """
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


def read_metrics(step: Step) -> dict[str, float]:
    """Those of the last evaluation as fractions."""
    whole = find_toolbox(Config.fromfile(step.config)).whole
    (run,) = load_runs([str(step.folder)])
    return {title: run.val[-1][key] / whole for title, key in step.metrics.items()}

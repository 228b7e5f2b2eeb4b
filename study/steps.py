"""Trainings as steps of a longer way: finished ones are kept, and run again when inputs change.

Each is a process of its own, a call of ``tools/train.py``; on Linux it is told to end when the one
that started it does. What it says goes to ``train.log`` in its work dir, and what came of it to
``step.json``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..engine.interrupts import end_with_parent
from ..engine.logs import load_runs
from ..engine.saving import find_last_checkpoint
from ..engine.toolboxes import find_toolbox
from ..errors import UserError
from ..files import replacing

PACKAGE = Path(__file__).resolve().parent.parent
ROOMS = ('backbones', 'heads', 'families', 'serialization', 'engine')
CODE = ('*.py', *(f'{room}/*.py' for room in ROOMS), 'tools/train.py')  # what a run depends on
PROGRESS = re.compile(r'Epoch\(train\)\s+(\[\d+\]\[ *\d+/\d+\]).* eta: (\S+).* loss: (\S+)')
LOADED = re.compile(r'loaded (\d+ of \d+) tensors')
_environment = threading.RLock()


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
        variables: Of the environment, which configs may name: ``{{$NAME:default}}``.
        follows_code: Whether other code of this package means another training.
    """

    title: str
    config: Path
    folder: Path
    metrics: dict[str, str]
    data: tuple[Path, ...] = ()
    needs: Step | None = None
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    follows_code: bool = True

    @property
    def checkpoint(self) -> Path | None:
        """The last one that mmengine wrote, if it is there."""
        return find_last_checkpoint(self.folder)

    @property
    def inputs(self) -> str:
        """Changes with the config, the code, the data and the weights that the step starts from."""
        start = str(self.needs.folder) if self.needs else '\0'  # its weights count, not their place
        parts = [
            read_text(self.config, tuple(self.variables.items()), self.config.stat().st_mtime_ns),
            *(option.replace(start, '') for option in self.options),
            *(path.read_text() for path in self.data),
            *(path.read_text() for path in list_code() if self.follows_code),
        ]
        if self.needs:
            parts.append(self.needs.inputs)
        return hashlib.sha256('\0'.join(parts).encode()).hexdigest()

    def read_config(self) -> Config:
        """The config, without the options."""
        with environment(self.variables):
            return Config.fromfile(self.config)


@functools.cache
def read_text(config: Path, variables: tuple[tuple[str, str], ...], changed: int) -> str:
    """All of a config; it is read anew when its file has ``changed``."""
    with environment(dict(variables)):
        return Config.fromfile(config).pretty_text


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process's environment, for one thread at a time."""
    with _environment:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def list_code() -> list[Path]:
    """The files that a run depends on."""
    files = (path for pattern in CODE for path in sorted(PACKAGE.glob(pattern)))
    return [path for path in files if path.name != 'setup.py']


class Result(NamedTuple):
    """What came of a step: its metrics as fractions, how many pretrained tensors it got; the time
    that it took, the time that cores worked for it, the most memory of its main process, in MiB."""

    inputs: str
    seconds: float
    core_seconds: float
    memory: int
    loaded: str | None
    metrics: dict[str, float]


def run_step(step: Step, command: Sequence[str], *, verbose: bool = True) -> Result:
    """Train and evaluate, or return the result of an earlier call with the same inputs.

    Args:
        step: What to do.
        command: What calls ``tools/train.py``.
        verbose: Show the training's progress.

    Raises:
        UserError: When the training fails.
    """
    file = step.folder / 'step.json'
    inputs = step.inputs
    if file.is_file():
        result = json.loads(file.read_text())
        if result['inputs'] == inputs and result.keys() == set(Result._fields) and step.checkpoint:
            result = Result(**result)
            print(f'{step.title}: done before ({step.folder})')
            return result
    arguments = [str(step.config), *step.options]
    print(f'{step.title}: {" ".join(["python", *command[1:], *arguments])}', flush=True)
    file.unlink(missing_ok=True)
    begin = time.time()
    command = [*command, *arguments, '--work-dir', str(step.folder)]
    loaded, usage = train(step, command, verbose)
    result = Result(
        inputs,
        seconds=time.time() - begin,
        core_seconds=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss // 1024,
        loaded=loaded,
        metrics=read_metrics(step),
    )
    with replacing(file) as part:
        part.write_text(json.dumps(result._asdict(), indent=1))
    return result


def forget(step: Step) -> None:
    """Let the next call run a step, whatever it finds."""
    (step.folder / 'step.json').unlink(missing_ok=True)


def train(
    step: Step, command: Sequence[str], verbose: bool
) -> tuple[str | None, resource.struct_rusage]:
    """Run a training; how many tensors it has loaded, and what its process used.

    Raises:
        UserError: When it fails.
    """
    with environment(step.variables):
        variables = dict(os.environ)
    log_file = step.folder / 'train.log'
    log_file.parent.mkdir(parents=True, exist_ok=True)
    line, loaded = 'no output', None
    with (
        log_file.open('w') as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env=variables,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            if progress := PROGRESS.search(line):
                shown = 'epoch {} eta {} loss {}'.format(*progress.groups())
            elif found := LOADED.search(line):
                loaded, shown = found[1], line[found.start() :].strip()
            else:
                continue
            if verbose:
                print(f'  {step.title}: {shown}', flush=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f'{" ".join(command)} failed: {line.strip()} (all of it: {log_file})')
    return loaded, usage


def read_metrics(step: Step) -> dict[str, float]:
    """Those of the last evaluation as fractions."""
    whole = find_toolbox(step.read_config()).whole
    (run,) = load_runs([str(step.folder)])
    return {title: run.val[-1][key] / whole for title, key in step.metrics.items()}

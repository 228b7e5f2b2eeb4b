"""Many steps at a time, on this machine's cores or by a cluster's scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import UserError, last_line
from .steps import Result, Step, run_step

MAX_MINUTES = 60  # of a step on a cluster
Key = TypeVar('Key', bound=Hashable)


@dataclass(frozen=True)
class Queue:
    """What runs steps.

    Args:
        command: What calls ``tools/train.py``.
        workers: How many at a time.
        cluster: Of submitit, which then starts them: ``'slurm'``, or ``'local'``, all at once;
            None for processes of this one.
        folder: For submitit's files.
        hours: After which no further step begins.
        verbose: Whether to show the trainings' progress.
    """

    command: Sequence[str]
    workers: int
    cluster: str | None = None
    folder: Path = Path('jobs')
    hours: float = math.inf
    verbose: bool = False

    def run(self, steps: Mapping[Key, Step], keep: Callable[[Key, Result], None]) -> list[str]:
        """Run what starts from nothing, then what starts from that.

        Args:
            steps: By a key.
            keep: Gets each result, in the order of the steps.

        Returns:
            Why some have no result, which is printed too: one that fails does not end the others.

        Raises:
            UserError: When submitit is not installed, or knows no such cluster.
        """
        deadline = time.time() + 3600 * self.hours
        failures: dict[Path, str] = {}  # by folder
        for has_needs in (False, True):
            wave = {key: step for key, step in steps.items() if bool(step.needs) == has_needs}
            with self._make_executor() as executor:
                jobs = {}
                try:
                    with self._batch(executor):
                        for key, step in wave.items():
                            if not (step.needs and step.needs.folder in failures):
                                arguments = (step, self.command, deadline, self.verbose)
                                jobs[key] = executor.submit(try_step, *arguments)
                    for key, step in wave.items():
                        result = (
                            get_result(jobs[key]) if key in jobs else 'what it starts from failed'
                        )
                        if isinstance(result, str):
                            failures[step.folder] = f'{step.title}: {result}'
                            print(failures[step.folder], flush=True)
                        else:
                            keep(key, result)
                except BaseException:  # what waits must not begin
                    for job in jobs.values():
                        job.cancel()
                    raise
        return list(failures.values())

    def _batch(self, executor: Executor) -> AbstractContextManager:
        """Where jobs that are submitted make one array, of which so many run at a time."""
        return executor.batch() if self.cluster == 'slurm' else nullcontext()

    def _make_executor(self) -> AbstractContextManager[Executor]:
        if self.cluster is None:  # threads, each of which waits for a process
            return ThreadPoolExecutor(self.workers)
        try:
            from submitit import AutoExecutor

            executor = AutoExecutor(self.folder, cluster=self.cluster)
        except ImportError as error:
            raise UserError("--cluster needs submitit: pip install 'mmdense[study]'") from error
        except (RuntimeError, ValueError) as error:
            raise UserError(f'--cluster {self.cluster}: {last_line(error)}') from error
        executor.update_parameters(timeout_min=MAX_MINUTES, cpus_per_task=1)
        if self.cluster == 'slurm':
            executor.update_parameters(slurm_array_parallelism=self.workers)
        return nullcontext(executor)


def get_result(job: Future) -> Result | str:
    """What a job gives, or why it gives nothing: it was lost, say, with the machine it ran on."""
    try:
        return job.result()
    except Exception as error:
        return f'{type(error).__name__}: {last_line(error)}'


def try_step(step: Step, command: Sequence[str], deadline: float, verbose: bool) -> Result | str:
    """The result of a step, or why there is none."""
    if time.time() > deadline:
        return 'not begun, --hours are over'
    try:
        return run_step(step, command, verbose=verbose)
    except UserError as error:
        return str(error)

"""Many steps at a time, on this machine's cores or by a cluster's scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
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
    """

    command: Sequence[str]
    workers: int
    cluster: str | None
    folder: Path
    hours: float = math.inf

    def run(self, steps: Mapping[Key, Step], keep: Callable[[Key, Result], None]) -> list[str]:
        """Run what starts from nothing, then what starts from that.

        Args:
            steps: By a key.
            keep: Gets each result, in the order of the steps.

        Returns:
            Why some have no result: one that fails does not end the others.

        Raises:
            UserError: When submitit is not installed, or knows no such cluster.
        """
        deadline = time.time() + 3600 * self.hours
        failures = []
        for has_needs in (False, True):
            wave = {key: step for key, step in steps.items() if bool(step.needs) == has_needs}
            with self._make_executor() as executor:
                jobs = {
                    key: executor.submit(try_step, step, self.command, deadline)
                    for key, step in wave.items()
                }
                try:
                    for key, job in jobs.items():
                        result = job.result()
                        if isinstance(result, str):
                            failures.append(result)
                        else:
                            keep(key, result)
                except BaseException:  # what waits must not begin; what runs ends with this process
                    for job in jobs.values():
                        job.cancel()
                    raise
        return failures

    def _make_executor(self) -> AbstractContextManager[Executor]:
        if self.cluster is None:  # threads, each of which waits for a process
            return ThreadPoolExecutor(self.workers)
        try:
            import submitit

            executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        except ImportError as error:
            raise UserError("--cluster needs submitit: pip install 'mmdense[study]'") from error
        except (RuntimeError, ValueError) as error:
            raise UserError(f'--cluster {self.cluster}: {last_line(error)}') from error
        executor.update_parameters(timeout_min=MAX_MINUTES, cpus_per_task=1)
        if self.cluster == 'slurm':
            executor.update_parameters(slurm_array_parallelism=self.workers)
        return nullcontext(executor)


def try_step(step: Step, command: Sequence[str], deadline: float) -> Result | str:
    """The result of a step, or why there is none."""
    if time.time() > deadline:
        return f'{step.title}: not begun, --hours are over'
    try:
        return run_step(step, command, verbose=False)
    except UserError as error:
        return str(error)

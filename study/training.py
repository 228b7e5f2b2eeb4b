"""Training the study's runs: into the file of results, or with today's code to compare with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from .queue import Queue
from .results import (
    Cost,
    Record,
    Records,
    find_regressions,
    read_records,
    write_records,
)
from .runs import SEEDS, Run
from .steps import Result, Step

Key = tuple[Run, int]  # with its seed


@dataclass
class Study:
    """Trains runs by their seeds.

    Args:
        queue: What runs trainings.
        file: Of the results.
        work_dir: The folder that theirs lie in.
        follows_code: Whether to train again when this package's code has changed.
    """

    queue: Queue
    file: Path
    work_dir: Path
    follows_code: bool = False
    records: Records = field(init=False)

    def __post_init__(self) -> None:
        self.records = read_records(self.file)

    def is_known(self, run: Run, seed: int) -> bool:
        """Whether the file has a result of this config, data and weights."""
        results = self._find(run)
        step = run.make_step(seed, self.work_dir, follows_code=False)
        return seed in results and results[seed].inputs == step.inputs

    def make_step(self, run: Run, seed: int) -> Step:
        """The training of a run."""
        return run.make_step(seed, self.work_dir, self.follows_code)

    def _find(self, run: Run) -> dict[int, Result]:
        return self.records[run.name].results if run.name in self.records else {}

    def train(self, keys: Sequence[Key], count: Callable[[Run, Step], Cost]) -> list[str]:
        """Train runs into the file of results: one by one, so that a study that was ended goes on.

        Args:
            keys: What to train.
            count: Parameters and MACs of a run.

        Returns:
            What failed.
        """

        def keep(run: Run, seed: int, step: Step, result: Result) -> None:
            self.records = read_records(self.file)  # another study may have added to it
            if (run, seed) not in keys and self.is_known(run, seed):  # only its weights were gone
                return
            known = {
                s: r for s, r in self._find(run).items() if s != seed and self.is_known(run, s)
            }
            cost = self.records[run.name].cost if known else count(run, step)
            self.records[run.name] = Record(cost, known | {seed: result})
            write_records(self.file, self.records)
            print(f'{step.title}: {describe(result)}', flush=True)

        return self._run(keys, keep)

    def compare(self, runs: Sequence[Run]) -> list[str]:
        """Train runs, with one seed or two, and say what is not as the results let expect.

        With other kernels a seed is another one, and one of many metrics may lie far out by chance:
        a run fails with two seeds in a row.

        Raises:
            UserError: When a run has no results to compare with.
        """
        for run in runs:
            if missing := [seed for seed in SEEDS if not self.is_known(run, seed)]:
                raise UserError(
                    f"'{run.name}' has no results of seeds {missing}, or of another config or "
                    'other data: run tools/study.py first'
                )
        found: dict[Run, list[str]] = {}

        def judge(run: Run, seed: int, step: Step, result: Result) -> None:
            if run not in runs:  # a start of others
                return
            texts = find_regressions(self.records, runs, run, result)
            print(f'{step.title}: {describe(result)}', *texts, sep='\n', flush=True)
            if found.get(run, True):  # a run that was well once is only a start for others
                found[run] = texts

        failures = []
        longest_first = sorted(runs, key=self._get_seconds, reverse=True)  # no core waits for one
        for seed in SEEDS[:2]:
            suspects = [(run, seed) for run in longest_first if found.get(run, True)]
            failures += self._run(suspects, judge)
        return failures + [text for run in runs for text in found.get(run, [])]

    def _get_seconds(self, run: Run) -> float:
        """What a core took for it before."""
        return self.records[run.name].results[SEEDS[0]].core_seconds

    def hash_inputs(self, runs: Sequence[Run]) -> str:
        """Changes with what a comparison depends on: configs, data, code, the runs' results."""
        parts = [self.make_step(run, seed).inputs for run in runs for seed in SEEDS]
        results = [repr(self._find(run)) for run in runs]
        return hashlib.sha256('\0'.join([*parts, *results]).encode()).hexdigest()

    def _run(
        self, keys: Sequence[Key], keep: Callable[[Run, int, Step, Result], None]
    ) -> list[str]:
        """Run trainings, and those that they start from: what is done already is kept."""
        steps = {key: self.make_step(*key) for key in keys}
        for run, seed in keys:
            if run.classifier:
                steps[run.classifier, seed] = self.make_step(run.classifier, seed)
        return self.queue.run(steps, lambda key, result: keep(*key, steps[key], result))


def describe(result: Result) -> str:
    """Metrics and cost in a line."""
    metrics = ', '.join(f'{metric} {value:.3f}' for metric, value in result.metrics.items())
    return f'{metrics} ({result.core_seconds:.0f} core seconds, {result.memory} MiB)'

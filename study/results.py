"""What came of the study's runs: ``configs/study/results.json``."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..files import replacing
from .runs import Run
from .steps import Result

RESULTS = 'results.json'
TOLERANCE = 3  # standard deviations
LEAST_DEVIATION = 0.005
LARGEST_LOSS = 0.9  # of a metric


class Cost(NamedTuple):
    """Parameters and multiply-accumulates of a run's backbone, then those of the whole model, on an
    image of its data."""

    params: int
    macs: int
    whole_macs: int


class Record(NamedTuple):
    """What came of a run: its cost, and a result for each seed."""

    cost: Cost
    results: dict[int, Result]

    def collect(self, metric: str) -> list[float]:
        """A metric of each seed."""
        return [result.metrics[metric] for result in self.results.values()]

    def summarize(self, metric: str) -> tuple[float, float]:
        """Mean and standard deviation of a metric over the seeds; NaN of one seed."""
        values = self.collect(metric)
        return statistics.mean(values), statistics.stdev(values) if values[1:] else math.nan

    def describe(self, metric: str) -> str:
        """Mean and deviation of a metric; of one seed, what it is."""
        mean, deviation = self.summarize(metric)
        return f'{mean:.3f}' if math.isnan(deviation) else f'{mean:.3f} ± {deviation:.3f}'


Records = dict[str, Record]


def read_records(path: Path) -> Records:
    """What was measured, by the names of runs; nothing where there is no such file.

    Raises:
        UserError: When the file is none of the study's.
    """
    if not path.is_file():
        return {}
    try:
        return {
            name: Record(
                Cost(*(entry[field] for field in Cost._fields)),
                {int(seed): Result(**result) for seed, result in entry['seeds'].items()},
            )
            for name, entry in json.loads(path.read_text()).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' holds no results of a study; move it away") from error


def write_records(path: Path, records: Records) -> None:
    """The file of results, whole or not at all.

    Raises:
        UserError: When it cannot be written.
    """
    content = {
        name: dict(
            **record.cost._asdict(),
            seeds={seed: result._asdict() for seed, result in sorted(record.results.items())},
        )
        for name, record in sorted(records.items())
    }
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + '\n')


def find_regressions(records: Records, runs: Sequence[Run], run: Run, result: Result) -> list[str]:
    """The metrics of a new result that are not what the results let expect, in words.

    Three seeds may agree by chance: the deviation is that of the run or, where it is larger, what
    half of the ``runs`` with the same config have, up to a sixth of the mean, so that half of a
    metric cannot be lost unseen. Where seeds differ more than that, nearly all of it cannot.
    """
    peers = [records[peer.name] for peer in runs if peer.config == run.config]
    found = []
    for metric, value in result.metrics.items():
        mean, deviation = records[run.name].summarize(metric)
        common = statistics.median(peer.summarize(metric)[1] for peer in peers)
        common = min(common, mean / (2 * TOLERANCE))
        limit = TOLERANCE * max(deviation, common, LEAST_DEVIATION)
        limit = min(limit, LARGEST_LOSS * mean)
        if not abs(value - mean) <= limit:
            found.append(f'{run.name}: {metric} is {value:.3f}, not {mean:.3f} +- {limit:.3f}')
    return found

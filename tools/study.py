"""Train every network of the study from configs/study, and say what came of it.

python tools/study.py                       # or: make study
python tools/study.py --only 'msf' --seeds 0 --list
python tools/study.py --regress             # or: make regress
python tools/study.py --cluster slurm --workers 16

Results are kept one by one: a call that was ended goes on. Runs whose config, data and weights are
those of a result in the file are not trained again.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path

from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch, study
from mmdense.engine.step_queue import Queue
from mmdense.engine.steps import Result, Step, forget
from mmdense.engine.study import (
    Cost,
    Record,
    Run,
    check_record,
    find_regressions,
    read_records,
    write_records,
)
from mmdense.errors import UserError
from mmdense.inference.flops import measure

ROOT = Path(__file__).resolve().parent.parent
SIDES = {'classifier': 48}  # of the pictures; others are scenes
SCENE = 128
COMMAND = (sys.executable, 'tools/train.py')
Key = tuple[Run, int]  # with its seed


def resolve(path: str) -> Path:
    """A path that the user names, from where they call."""
    return Path(path).resolve()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train and compare small networks of every kind')
    parser.add_argument(
        '--results',
        type=resolve,
        default=ROOT / study.FOLDER / study.RESULTS,
        help='the file that gets them (default: %(default)s)',
    )
    parser.add_argument('--only', default='', metavar='REGEX', help='of the names of runs')
    parser.add_argument('--seeds', type=int, nargs='+', default=study.SEEDS)
    parser.add_argument('--anew', action='store_true', help='also what has results already')
    parser.add_argument('--list', action='store_true', help='say what is there, and train nothing')
    parser.add_argument(
        '--hours', type=float, default=math.inf, help='begin no further run after that time'
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='runs at a time; they share the cores of this machine (default: %(default)s)',
    )
    parser.add_argument(
        '--cluster',
        help='give the runs to submitit in place of this machine: slurm (or local, all at once)',
    )
    parser.add_argument(
        '--work-dir',
        type=resolve,
        help='for checkpoints and logs (default: work_dirs/study, or work_dirs/regress)',
    )
    parser.add_argument(
        '--regress',
        action='store_true',
        help="only train the families' first seed with today's code, and compare",
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error('--workers must be at least 1')
    if args.list and args.regress:
        parser.error('--list does not go with --regress')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs', 'regress' if args.regress else 'study')
    try:
        args.only = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only '{args.only}' is no regular expression: {error}")
    return args


def make_step(run: Run, seed: int, args: argparse.Namespace) -> Step:
    """A run's training."""
    return run.make_step(seed, args.work_dir, follows_code=args.regress)


def make_queue(args: argparse.Namespace) -> Queue:
    """What runs the trainings."""
    return Queue(COMMAND, args.workers, args.cluster, args.work_dir / 'jobs', args.hours)


def count(run: Run, step: Step) -> Cost:
    """Of a run's backbone."""
    cfg = step.read_config()
    cfg.merge_from_dict({f'model.backbone.{key}': value for key, value in run.options})
    return Cost(*measure(cfg, (SIDES.get(run.config, SCENE),) * 2).parts['backbone'])


def add_starts(steps: dict[Key, Step]) -> dict[Key, Step]:
    """Steps, and those whose checkpoints they start from: what is done already is kept."""
    starts = {
        (run.classifier, seed): step.needs for (run, seed), step in steps.items() if step.needs
    }
    return steps | starts


def study_all(steps: dict[Key, Step], args: argparse.Namespace) -> list[str]:
    """Train what has no result, or an older one, into the file of results."""
    records = read_records(args.results)

    def is_known(key: Key) -> bool:
        run, seed = key
        result = records[run.name].results.get(seed) if run.name in records else None
        return result is not None and result.inputs == steps[key].inputs

    missing = {key: step for key, step in steps.items() if args.anew or not is_known(key)}
    print(f'{len(steps)} runs, {len(steps) - len(missing)} with results in {args.results}')
    if args.list:
        print(*(step.title for step in missing.values()), sep='\n')
        return []
    if args.anew:
        for step in missing.values():
            forget(step)
    missing = add_starts(missing)

    def keep(key: Key, result: Result) -> None:
        run, seed = key
        old = records[run.name].results if run.name in records else {}
        fresh = {s: r for s, r in old.items() if r.inputs == make_step(run, s, args).inputs}
        records[run.name] = Record(count(run, missing[key]), fresh | {seed: result})
        write_records(args.results, records)
        print(f'{missing[key].title}: {describe(result)}', flush=True)

    return make_queue(args).run(missing, keep)


def find_all_regressions(steps: dict[Key, Step], args: argparse.Namespace) -> list[str]:
    """Train with today's code; what is not as the results let expect, with two seeds in a row.

    With other kernels a seed is another one, and one of many may lie far out by chance.
    """
    records, found = read_records(args.results), {}
    runs = list(dict.fromkeys(run for run, _ in steps))
    for run in runs:
        check_record(records, run)

    def compare(key: Key, result: Result) -> None:
        run, seed = key
        if run not in runs:  # a start of others
            return
        texts = find_regressions(records, runs, run, result)
        print(f'{run.name}, seed {seed}: {describe(result)}', *texts, sep='\n', flush=True)
        if found.get(run, True):  # a run that was well once is only a start for others
            found[run] = texts

    failures = []
    for seed in study.SEEDS[:2]:
        suspects = {
            (run, s): step for (run, s), step in steps.items() if s == seed and found.get(run, True)
        }
        failures += make_queue(args).run(add_starts(suspects), compare)
    return failures + [text for texts in found.values() for text in texts]


def describe(result: Result) -> str:
    """Metrics and cost in a line."""
    metrics = ', '.join(f'{metric} {value:.3f}' for metric, value in result.metrics.items())
    return f'{metrics} ({result.core_seconds:.0f} core seconds, {result.memory} MiB)'


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # it tells of every variable in a config
    os.chdir(ROOT)
    if not study.DATA.is_file():
        raise UserError(f'there are no digit scenes in {study.DATA.parent}: run `make data` first')
    threads = 1 if args.cluster else max(1, (os.cpu_count() or 1) // args.workers)
    os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    tables = [table for table in study.read_tables() if table.regress or not args.regress]
    runs = [run for run in study.list_runs(tables) if args.only.search(run.name)]
    if not runs:
        raise UserError(f"no run has a name with '{args.only.pattern}'; --list shows them")
    seeds = study.SEEDS[:2] if args.regress else args.seeds
    steps = {(run, seed): make_step(run, seed, args) for run in runs for seed in seeds}
    faults = (find_all_regressions if args.regress else study_all)(steps, args)
    if faults:
        raise UserError('; '.join(faults))


if __name__ == '__main__':
    launch.run(main)

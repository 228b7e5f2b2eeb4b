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
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.inference.flops import measure
from mmdense.study import runs
from mmdense.study.queue import Queue
from mmdense.study.results import RESULTS, Cost
from mmdense.study.runs import Run
from mmdense.study.steps import Step, forget
from mmdense.study.training import Study

ROOT = Path(__file__).resolve().parent.parent
COMPARED = runs.FOLDER / 'compared.txt'  # a hash of what was last as good as the results
SIDES = {'classifier': 48}  # of the pictures; others are scenes
SCENE = 128
COMMAND = (sys.executable, 'tools/train.py')


def resolve(path: str) -> Path:
    """A path that the user names, from where they call."""
    return Path(path).resolve()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train and compare small networks of every kind')
    parser.add_argument(
        '--results',
        type=resolve,
        default=ROOT / runs.FOLDER / RESULTS,
        help='the file that gets them (default: %(default)s)',
    )
    parser.add_argument('--only', default='', metavar='REGEX', help='of the names of runs')
    parser.add_argument('--seeds', type=int, nargs='+', default=runs.SEEDS)
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
        help="compare: train the families' first seed with today's code, a second where it is off",
    )
    parser.add_argument(
        '--if-changed',
        action='store_true',
        help=f'with --regress: unless all of it was compared before, as {COMPARED} says',
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error('--workers must be at least 1')
    if args.regress and (args.list or args.anew or args.seeds != runs.SEEDS):
        parser.error('--list, --anew and --seeds do not go with --regress')
    if args.if_changed and not args.regress:
        parser.error('--if-changed goes with --regress')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs', 'regress' if args.regress else 'study')
    try:
        args.only = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only '{args.only}' is no regular expression: {error}")
    return args


def count(run: Run, step: Step) -> Cost:
    """Of a run's backbone, and its model."""
    cfg = step.read_config()
    cfg.merge_from_dict({f'model.backbone.{key}': value for key, value in run.options})
    found = measure(cfg, (SIDES.get(run.config, SCENE),) * 2)
    return Cost(*found.parts['backbone'], found.macs)


def train(plan: Study, chosen: list[Run], args: argparse.Namespace) -> list[str]:
    """What has no result yet; what failed."""
    keys = [(run, seed) for run in chosen for seed in args.seeds]
    missing = [key for key in keys if args.anew or not plan.is_known(*key)]
    print(f'{len(keys)} runs, {len(keys) - len(missing)} with results in {args.results}')
    steps = [plan.make_step(*key) for key in missing]
    if args.list:
        print(*(step.title for step in steps), sep='\n')
        return []
    for step in steps if args.anew else []:
        forget(step)
    return plan.train(missing, count)


def compare(plan: Study, chosen: list[Run], args: argparse.Namespace) -> list[str]:
    """With today's code; what is not as it was."""
    inputs = f'{plan.hash_inputs(chosen)}\n'
    if args.if_changed and COMPARED.is_file() and COMPARED.read_text() == inputs:
        print(f'code, configs and results are those of the last comparison ({COMPARED})')
        return []
    found = plan.compare(chosen)
    if not found and not args.only.pattern:
        with replacing(COMPARED) as part:
            part.write_text(inputs)
    return found


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # it tells of every variable in a config
    os.chdir(ROOT)
    if not runs.DATA.is_file():
        raise UserError(f'there are no digit scenes in {runs.DATA.parent}: run `make data` first')
    threads = 1 if args.cluster else max(1, (os.cpu_count() or 1) // args.workers)
    os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    tables = [table for table in runs.read_tables() if table.regress or not args.regress]
    chosen = [run for run in runs.list_runs(tables) if args.only.search(run.name)]
    if not chosen:
        raise UserError(f"no run has a name with '{args.only.pattern}'; --list shows them")
    plan = Study(
        Queue(COMMAND, args.workers, args.cluster, args.work_dir / 'jobs', args.hours),
        args.results,
        args.work_dir,
        follows_code=args.regress,
    )
    faults = (compare if args.regress else train)(plan, chosen, args)
    if faults:
        raise UserError('; '.join(faults))


if __name__ == '__main__':
    launch.run(main)

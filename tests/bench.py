"""Our networks' speed and memory beside those of the baseline in tests/bench.json.

python tests/bench.py                               # or: make bench
python tests/bench.py --only 'paca_t forward'       # some rows, by a part of their names
python tests/bench.py --write                       # the baseline anew, on a machine that idles

A row is a pass of one backbone. Its share is its multiply-accumulates a second by those of a large
float32 matrix product, which is measured between the passes, so that most of the machine's speed
cancels out: what is left are the CPU's vector width, caches and threads. A faster network has a
larger share. Exit code 1 tells of rows that take more time or more tensors than the baseline says.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)

import torch  # isort: skip
from helpers import load_config, remember_what_is_slow
from mmengine.logging import MMLogger
from tqdm import tqdm

from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.inference import flops
from mmdense.inference.benchmark import Case, Timing, measure, prepare

BASELINE = Path(__file__).with_name('bench.json')
SIDE, PRODUCTS = 1024, 4  # of the matrices, and how many of them a measurement multiplies
MORE_TENSORS = 0.10  # than the baseline's; they are counted, not timed


class Pass(NamedTuple):
    """What is run of a network, and how many times the MACs of its forward pass that is."""

    mode: str
    batch_size: int
    shape: tuple[int, int]
    passes: int


class Figures(NamedTuple):
    """What is measured of a row: share of the matrix product's speed, MiB of tensors."""

    share: float
    mib: float


SMALL = {
    'forward 4x224x224': Pass('inference', 4, (224, 224), 1),
    'training 4x224x224': Pass('train', 4, (224, 224), 3),
}
ALL = {**SMALL, 'forward 1x800x1344': Pass('inference', 1, (800, 1344), 1)}
NETWORKS = {
    'paca/paca_t': ALL,
    'paca/paca_s': ALL,
    'groupmixformer/groupmixformer_t': ALL,
    'groupmixformer/groupmixformer_s': ALL,
    'fcvit/fcvit_tiny': ALL,
    'fcvit/fcvit_b12': ALL,
    'msf/msf_s': SMALL,
}
ROWS = {
    f'{name.split("/")[1]} {label}': (name, run)
    for name, runs in NETWORKS.items()
    for label, run in runs.items()
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare speed and memory with the baseline')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='rows with these in their names')
    parser.add_argument('--rounds', type=int, default=5, help='passes of each row (default: 5)')
    parser.add_argument('--limit', type=float, default=0.10, help='more time that is too much')
    parser.add_argument('--write', action='store_true', help='write the baseline, compare nothing')
    args = parser.parse_args()
    if args.rounds < 1 or args.limit <= 0:
        parser.error('--rounds and --limit must be positive')
    if args.write and args.only:
        parser.error('--write takes all rows: those of a baseline are measured together')
    for name in args.only or ():
        if not any(name in row for row in ROWS):
            parser.error(f"--only '{name}': the rows are {', '.join(ROWS)}")
    return args


def measure_rows(rows: list[str], rounds: int) -> dict[str, Figures]:
    """Time rows in turn, a matrix product before and after each pass."""
    matrices = torch.randn(2, SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            torch.mm(*matrices, out=out)

    device = torch.device('cpu')
    steps, macs = [multiply], []
    for row in tqdm(rows, 'models', disable=None):
        name, run = ROWS[row]
        cfg = load_config(f'{name}_in1k')
        macs.append(count_macs(name, run.shape) * run.batch_size * run.passes)
        case = Case(name, run.mode, 'backbone', 'fp32', 'contiguous', 'eager')
        steps += [prepare(case, cfg, run.shape, run.batch_size, device), multiply]
    passes = measure(steps, 1, device, 1, rounds)
    total = len(steps) * (2 + rounds)
    timings = deque(tqdm(passes, 'passes', total, disable=None), maxlen=1).pop()
    return {
        row: Figures(
            share=round(get_share(macs[i], *timings[2 * i : 2 * i + 3]), 4),
            mib=round(timings[2 * i + 1].peak_bytes / 2**20, 1),
        )
        for i, row in enumerate(rows)
    }


@functools.cache
def count_macs(name: str, shape: tuple[int, int]) -> int:
    """Of a network's backbone on one image."""
    return flops.measure(load_config(f'{name}_in1k'), shape).parts['backbone'].macs


def get_share(macs: int, before: Timing, timing: Timing, after: Timing) -> float:
    """A row's speed by that of the products around it, at the median round."""
    return statistics.median(
        macs / seconds * (first + second) / (2 * PRODUCTS * SIDE**3)
        for first, seconds, second in zip(before.seconds, timing.seconds, after.seconds)
    )


def describe_machine() -> dict[str, object]:
    """What shares depend on, beside the code."""
    capability = torch.backends.cpu.get_cpu_capability()
    return dict(capability=capability, torch=torch.__version__, threads=torch.get_num_threads())


def find_worse(
    now: dict[str, Figures], then: dict[str, Figures], limit: float
) -> dict[str, list[str]]:
    """What is worse than in the baseline, and in which rows; those that it lacks are not."""
    both = [row for row in now if row in then]
    slower = [row for row in both if then[row].share > (1 + limit) * now[row].share]
    larger = [row for row in both if now[row].mib > (1 + MORE_TENSORS) * then[row].mib]
    return {word: rows for word, rows in (('slower', slower), ('more tensors', larger)) if rows}


def report(now: dict[str, Figures], baseline: dict, limit: float) -> int:
    """Print how rows compare with the baseline; returns the exit code."""
    then = {row: Figures(**figures) for row, figures in baseline['rows'].items()}
    print(f'{"":38}' + ''.join(f'{word:>9}' for word in 'share then ratio MiB then'.split()))
    for row, (share, mib) in now.items():
        old = then.get(row)
        ratio = f'{share / old.share:.3f}' if old else '-'
        cells = (share, old.share if old else '-', ratio, mib, old.mib if old else '-')
        print(f'{row:38}' + ''.join(f'{cell:>9}' for cell in cells))
    print('ratio: speed relative to the baseline; 2 is twice as fast')
    machine = describe_machine()
    for key, value in baseline['machine'].items():
        if value != machine[key]:
            print(f'{key}: {machine[key]}, but the baseline was made with {value}')
    missing = [row for row in now if row not in then]
    if missing:
        print(f'not in the baseline: {", ".join(missing)}')
    worse = find_worse(now, then, limit)
    if worse:
        print('; '.join(f'{word}: {", ".join(rows)}' for word, rows in worse.items()))
    return int(bool(worse))


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    if not args.write and not BASELINE.is_file():
        raise UserError(f'there is no {BASELINE}: make it with --write')
    torch.set_num_threads(min(2, torch.get_num_threads()))
    remember_what_is_slow()
    rows = [row for row in ROWS if not args.only or any(name in row for name in args.only)]
    now = measure_rows(rows, args.rounds)
    if args.write:
        figures = {row: found._asdict() for row, found in now.items()}
        content = dict(machine=describe_machine(), rows=figures)
        with replacing(BASELINE) as part:
            part.write_text(json.dumps(content, indent=1) + '\n')
        return
    sys.exit(report(now, json.loads(BASELINE.read_text()), args.limit))


if __name__ == '__main__':
    launch.run(main)

"""Faults while a training runs: what is left of it, and whether it ends as if nothing had happened.

python tests/stress.py                              # or: make stress
python tests/stress.py --minutes 60 --only kill     # one fault, for an hour

Small classifiers train on digits, are hit by a fault at a random moment, and go on with --resume
until they are done. A try is lost when no whole checkpoint is left where there had been one, and
exact when weights and optimizer end bit-equal to those of a training that nothing happened to.
Full and read-only disks are mounted, which needs root; without it they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ['OMP_NUM_THREADS'] = '1'

import mmdense  # mends the stack before any mm* import

ROOT = Path(mmdense.__file__).parent

import torch  # noqa: E402
from helpers import remember_what_is_slow  # noqa: E402
from processes import find_children, find_port, fork, is_alive, wait  # noqa: E402

from mmdense.data.digit_scenes import Sizes, generate  # noqa: E402
from mmdense.engine.data import prepare_loading  # noqa: E402
from mmdense.engine.saving import find_checkpoint  # noqa: E402
from mmdense.errors import UserError  # noqa: E402
from mmdense.serialization.checkpoint import load_file  # noqa: E402

CONFIG = """
_base_ = 'mmdense::digits/paca_digits.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch=dict(
            embed_dims=[8] * 4, num_heads=[1] * 4, depths=[1] * 4, mlp_ratios=[1] * 4
        ),
        clusters=(4, 4, 4, 0),
        out_indices=(3,),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=8),
)
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs)
train_dataloader = dict(
    batch_size=8, num_workers={workers}, persistent_workers=False, dataset=dict(indices=64)
)
val_dataloader = dict(batch_size=8, dataset=dict(indices=24))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(
    logger=dict(interval=4),
    checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=1, save_best='auto'),
)
"""
LOGS = 130  # kilobytes, beside checkpoints
SECONDS = 120  # after that a process is stuck


class Outcome(NamedTuple):
    """What came of a try."""

    lost: bool  # no whole checkpoint is left where there had been one
    exact: bool  # the end is bit-equal to that of an undisturbed training
    wrong: str = ''  # what else is not as promised


class Training:
    """A training in a folder of its own, forked from this process, which has imported it all."""

    def __init__(self, folder: Path, workers: int = 0) -> None:
        self.folder = folder
        self.workers = workers
        self.work_dir = folder / 'run'
        self.log = folder / 'log.txt'
        self.config = folder / 'config.py'
        self.config.write_text(CONFIG.format(workers=workers))

    def start(self, *args: object) -> int:
        """Call tools/train.py; returns the process's number."""
        command = ['train.py', str(self.config), '--work-dir', 'run', *map(str, args)]

        def call() -> None:
            os.chdir(self.folder)
            sys.argv = command
            runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')

        return fork(self.log, call)

    def run(self, *args: object) -> int:
        """Call tools/train.py and wait; returns its exit code, or minus the signal's number."""
        return wait(self.start(*args), SECONDS)

    def find(self) -> int:
        """Iterations in the newest whole checkpoint; -1 without one."""
        if not self.work_dir.is_dir():
            return -1
        while True:
            path, _ = find_checkpoint(self.work_dir)
            with contextlib.suppress(UserError):  # replaced by the next one meanwhile
                return load_file(path, lazily=True)['meta']['iter'] if path else -1

    def result(self) -> dict:
        """Weights and optimizer at the end."""
        path, _ = find_checkpoint(self.work_dir)
        checkpoint = load_file(path)
        return dict(
            iter=checkpoint['meta']['iter'],
            state_dict=checkpoint['state_dict'],
            optimizer=checkpoint['optimizer'],
        )

    def finish(self, expected: dict, before: int) -> Outcome:
        """Resume until the end, and compare.

        Args:
            expected: The undisturbed training's :meth:`result`.
            before: What :meth:`find` said before the fault.
        """
        left = self.find()
        code = self.run('--resume')
        wrong = '' if code == 0 else f'--resume ends with {code}: {self.last_line()}'
        exact = not wrong and are_equal(self.result(), expected)
        return Outcome(left < before, exact, wrong)

    def last_line(self) -> str:
        lines = self.log.read_text().strip().splitlines() if self.log.is_file() else []
        return lines[-1] if lines else ''

    def tracebacks(self) -> int:
        return self.log.read_text().count('Traceback (most recent call last)')


def are_equal(a: object, b: object) -> bool:
    """Whether two structures hold the same numbers, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(are_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(are_equal, a, b))
    return a == b


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


class Stress:
    """The faults; each method named ``try_*`` is one, on a fresh training."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.references: dict[int, tuple[dict, float]] = {}
        sizes = {'train': Sizes(scenes=2, crops=64), 'val': Sizes(scenes=2, crops=24)}
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            generate(folder / 'data' / 'digit_scenes', sizes, seed=0)

    @contextlib.contextmanager
    def training(self, workers: int | None = None) -> Iterator[Training]:
        workers = self.draw.choice((0, 2)) if workers is None else workers
        place = Path(tempfile.mkdtemp(dir=self.folder, prefix='try_'))
        (place / 'data').symlink_to(self.folder / 'data')
        yield Training(place, workers)
        shutil.rmtree(place, ignore_errors=True)

    def reference(self, workers: int) -> tuple[dict, float]:
        """The result of a training that nothing happens to, and how many seconds it takes."""
        if workers not in self.references:
            with self.training(workers) as training:
                start = time.monotonic()
                code = training.run()
                if code != 0:
                    sys.exit(f'error: a training fails by itself: {training.log.read_text()}')
                self.references[workers] = training.result(), time.monotonic() - start
        return self.references[workers]

    def strike(self, training: Training, act: Callable[[int], None], *args: object) -> tuple:
        """Start, wait for a random moment, act on the process: (exit code, checkpoint before)."""
        seconds = self.reference(training.workers)[1]
        child = training.start(*args)
        time.sleep(self.draw.uniform(0.1, 1.0) * seconds)
        before = training.find()
        with contextlib.suppress(ProcessLookupError):
            act(child)
        return wait(child, SECONDS), before

    def try_kill(self) -> Outcome:
        """kill -9 of a training, and often of the one that resumes it."""
        with self.training() as training:
            before = -1
            for attempt in range(self.draw.choice((1, 1, 2))):
                args = ['--resume'] if attempt else []
                before = max(before, self.strike(training, kill, *args)[1])
            return training.finish(self.reference(training.workers)[0], before)

    def try_signal(self) -> Outcome:
        """SIGTERM, SIGINT, SIGUSR1 and SIGHUP: saved at the step's end, exit code 128 + number."""
        number = self.draw.choice((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP))
        with self.training() as training:
            code, before = self.strike(training, lambda child: os.kill(child, number))
            started = 'Checkpoints will be saved' in training.log.read_text()
            promised = (0, 128 + number) if started else (0, 128 + number, -number)
            outcome = training.finish(self.reference(training.workers)[0], before)
            if code not in promised:
                return outcome._replace(wrong=f'exit code {code} after {number.name}')
            return outcome

    def try_dead_worker(self) -> Outcome:
        """kill -9 of a process that loads data."""
        with self.training(workers=2) as training:

            def kill_worker(child: int) -> None:
                for worker in find_children(child)[:1]:
                    kill(worker)

            _, before = self.strike(training, kill_worker)
            outcome = training.finish(self.reference(2)[0], before)
            if training.tracebacks():
                return outcome._replace(wrong='a traceback instead of a line')
            return outcome

    def try_moved_work_dir(self) -> Outcome:
        """The folder is somewhere else when the training goes on."""
        with self.training() as training:
            _, before = self.strike(training, kill)
            moved = training.folder / 'elsewhere' / 'run'
            moved.parent.mkdir()
            if training.work_dir.is_dir():
                training.work_dir.rename(moved)
                (training.folder / 'run').symlink_to(moved)
            return training.finish(self.reference(training.workers)[0], before)

    def try_two_writers(self) -> Outcome:
        """A second training of one work dir is refused, and the first one notices nothing."""
        with self.training(workers=0) as training:
            expected, seconds = self.reference(0)
            first = training.start()
            time.sleep(self.draw.uniform(0.1, 0.4) * seconds)
            second = Training(training.folder)
            second.log = training.folder / 'second.txt'
            alive = is_alive(first)
            code = second.run()
            ended = wait(first, SECONDS)
            wrong = '' if code == 1 or not alive else f'the second one ends with {code}'
            if ended != 0:
                wrong = f'the first one ends with {ended}'
            return Outcome(False, are_equal(training.result(), expected), wrong)

    @contextlib.contextmanager
    def disk(self, training: Training, kilobytes: int) -> Iterator[Callable[..., None]]:
        """The work dir on a disk of its own; yields what changes its options."""
        training.work_dir.mkdir()
        mount = ['mount', '-t', 'tmpfs', 'tmpfs', training.work_dir]
        subprocess.run([*mount, '-o', f'size={kilobytes}k'], check=True)

        def remount(options: str) -> None:
            command = ['mount', '-o', f'remount,{options}', training.work_dir]
            subprocess.run(command, check=True)

        try:
            yield remount
        finally:
            subprocess.run(['umount', '-l', training.work_dir], check=True)

    def try_full_disk(self) -> Outcome:
        """The disk has room for one checkpoint, and for a part of the next one."""
        with self.training(workers=0) as training:
            expected, _ = self.reference(0)
            size = self.measure() // 1024
            with self.disk(training, int(size * self.draw.uniform(1.2, 1.8)) + LOGS) as remount:
                code = training.run()
                before = training.find()
                wrong = '' if code == 1 and not training.tracebacks() else f'exit code {code}'
                remount(f'size={size * 20}k')
                outcome = training.finish(expected, before)
                return outcome._replace(wrong=wrong or outcome.wrong)

    def try_read_only_disk(self) -> Outcome:
        """The folder can no longer be written from some moment on."""
        with self.training(workers=0) as training:
            expected, seconds = self.reference(0)
            folder = training.work_dir
            folder.mkdir()
            child = training.start()
            time.sleep(self.draw.uniform(0.3, 0.8) * seconds)
            before = training.find()
            # Over itself: what is open stays open, and would keep it from being made read-only.
            subprocess.run(['mount', '--bind', folder, folder], check=True)
            subprocess.run(['mount', '-o', 'remount,bind,ro', folder], check=True)
            code = wait(child, SECONDS)
            subprocess.run(['umount', folder], check=True)
            if training.find() == expected['iter']:  # too late: all was written
                return self.try_read_only_disk()
            outcome = training.finish(expected, before)
            if code != 1 or training.tracebacks():
                return outcome._replace(wrong=f'exit code {code}, {training.last_line()}')
            return outcome

    def measure(self) -> int:
        """Bytes of a checkpoint."""
        if not hasattr(self, 'size'):
            with self.training(workers=0) as training:
                training.run()
                self.size = find_checkpoint(training.work_dir)[0].stat().st_size
        return self.size

    def launch(self, training: Training, *args: object, **env: object) -> subprocess.Popen:
        """Call tools/dist_train.sh with two processes, or with one for each of two machines."""
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        env = dict(dict(PORT=find_port()), **env)
        processes = 1 if 'NNODES' in env else 2
        command = ['bash', ROOT / 'tools' / 'dist_train.sh', training.config, processes]
        with training.log.open('a') as log:
            return subprocess.Popen(
                [*map(str, command), '--work-dir', 'run', *map(str, args)],
                cwd=training.folder,
                env=dict(os.environ, PATH=path, **{key: str(env[key]) for key in env}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def reference_of_two(self) -> dict:
        """The result of two processes that nothing happens to."""
        if 'group' not in self.references:
            with self.training(workers=0) as undisturbed:
                if self.launch(undisturbed).wait(SECONDS * 2):
                    sys.exit(f'error: two processes fail: {undisturbed.log.read_text()}')
                self.references['group'] = undisturbed.result(), 0.0
        return self.references['group'][0]

    def wait_for_checkpoint(self, training: Training, script: subprocess.Popen) -> None:
        start, wanted = time.monotonic(), self.draw.choice((3, 6, 9))
        while training.find() < wanted:
            if script.poll() is not None or time.monotonic() - start > SECONDS:
                sys.exit(f'error: several processes fail: {training.log.read_text()}')
            time.sleep(0.05)

    def try_two_machines(self) -> Outcome:
        """Two launchers of one process each are the training of one launcher of two."""
        with self.training(workers=0) as training:
            expected, port = self.reference_of_two(), find_port()
            both = [self.launch(training, NNODES=2, NODE_RANK=r, PORT=port) for r in (0, 1)]
            codes = [script.wait(SECONDS * 2) for script in both]
            wrong = f'exit codes {codes}: {training.last_line()}' if any(codes) else ''
            exact = not wrong and are_equal(training.result(), expected)
            return Outcome(False, exact, wrong)

    def try_dead_rank(self) -> Outcome:
        """kill -9 of one of two processes: the other ends within a minute, both go on."""
        return self.strike_group(lambda ranks, launcher: kill(ranks[1]), 60)

    def try_dead_launcher(self) -> Outcome:
        """kill -9 of torchrun: its processes end within 30 seconds, a new group goes on."""
        return self.strike_group(lambda ranks, launcher: kill(launcher), 30)

    def strike_group(self, act: Callable[[list[int], int], None], seconds: float) -> Outcome:
        with self.training(workers=0) as training:
            expected = self.reference_of_two()
            script = self.launch(training)
            self.wait_for_checkpoint(training, script)
            launcher, ranks = script.pid, find_children(script.pid)  # the script became torchrun
            before = training.find()
            act(ranks, launcher)
            start = time.monotonic()
            while any(map(is_alive, ranks)) and time.monotonic() - start < SECONDS:
                time.sleep(0.05)
            took = time.monotonic() - start
            code = script.wait(SECONDS)
            left = training.find()
            resumed = self.launch(training, '--resume').wait(SECONDS * 2)
            wrong = '' if took < seconds else f'processes end after {took:.0f} s'
            if code == 0 or resumed != 0:
                wrong = f'exit codes {code}, then {resumed}: {training.last_line()}'
            exact = resumed == 0 and are_equal(training.result(), expected)
            return Outcome(left < before, exact, wrong)


TRIES = {name[4:]: name for name in vars(Stress) if name.startswith('try_')}
MOUNTS = ('full_disk', 'read_only_disk')
# How often each is tried before kills take the rest of the time.
FIRST = dict(signal=8, dead_worker=3, moved_work_dir=3, two_writers=2, full_disk=3)
FIRST |= dict(read_only_disk=3, dead_rank=1, dead_launcher=1, two_machines=1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Hit trainings with faults')
    parser.add_argument('--minutes', type=float, default=5, help='for all (default: 5)')
    parser.add_argument('--only', choices=TRIES, nargs='+', help='these faults alone')
    parser.add_argument('--seed', type=int, default=0, help='draws the moments (default: 0)')
    parser.add_argument('--out', type=Path, help='also write the table as JSON to this file')
    return parser.parse_args()


def choose(only: list[str] | None, draw: random.Random) -> Iterator[str]:
    """Which fault comes next, without end."""
    names = [name for name in only or TRIES if os.geteuid() == 0 or name not in MOUNTS]
    if not only:
        first = [name for name in names for _ in range(FIRST.get(name, 0))]
        draw.shuffle(first)
        yield from first
        names = ['kill']
    while True:
        yield draw.choice(names)


def main() -> None:
    args = parse_args()
    end = time.monotonic() + 60 * args.minutes
    prepare()
    outcomes: dict[str, list[Outcome]] = {}
    folder = Path(tempfile.mkdtemp(prefix='stress_'))
    try:
        stress = Stress(folder, args.seed)
        for name in choose(args.only, stress.draw):
            if time.monotonic() > end:
                break
            outcome = getattr(stress, TRIES[name])()
            outcomes.setdefault(name, []).append(outcome)
            if outcome.lost or not outcome.exact or outcome.wrong:
                print(f'{name}: {outcome}', flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        dict(
            fault=name.replace('_', ' '),
            tries=len(found),
            survived=sum(not outcome.lost for outcome in found),
            exact=sum(outcome.exact for outcome in found),
            as_promised=sum(not outcome.wrong for outcome in found),
        )
        for name, found in sorted(outcomes.items())
    ]
    print(''.join(f'{key:>16}' for key in rows[0]))
    for row in rows:
        print(''.join(f'{value:>16}' for value in row.values()))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + '\n')
    sys.exit(int(any(row['tries'] != row[key] for row in rows for key in list(row)[2:])))


def prepare() -> None:
    """Import what a training imports, once for all processes forked from this one."""
    from mmengine.config import Config

    torch.set_num_threads(1)
    remember_what_is_slow()
    prepare_loading(Config(dict(default_scope='mmpretrain')))
    import mmpretrain.models  # noqa: F401

    from mmdense.engine import launch, training  # noqa: F401


if __name__ == '__main__':
    main()

"""Many steps at a time."""

import sys
import threading
from pathlib import Path

import pytest

from mmdense.errors import UserError
from mmdense.study import queue
from mmdense.study.queue import Queue
from mmdense.study.steps import Result, Step

COMMAND = (sys.executable, 'train.py')


@pytest.fixture
def began(monkeypatch) -> list[str]:
    """Names of steps in the order in which they began: `bad` fails, `mad` has a bug."""
    names: list[str] = []

    def run(step: Step, command: tuple, *, verbose: bool) -> Result:
        assert command == COMMAND and not verbose
        names.append(step.title)
        if step.title == 'bad':
            raise UserError('no space left')
        if step.title == 'mad':
            raise KeyError('what')
        return Result('', 1.0, 1.0, 1, None, dict(mIoU=len(names)))

    monkeypatch.setattr(queue, 'run_step', run)
    return names


def make(name: str, needs: Step | None = None) -> Step:
    return Step(name, Path('config.py'), Path(name), {}, needs=needs)


def run(steps: list[Step], **settings: object) -> tuple[list[str], list[str]]:
    """The names of kept results, and failures."""
    kept: list[str] = []
    there = Queue(COMMAND, **{**dict(workers=1, cluster=None, folder=Path('jobs')), **settings})
    failures = there.run({step.title: step for step in steps}, lambda key, result: kept.append(key))
    return kept, failures


def test_starts_come_first(began):
    first = make('first')
    kept, failures = run([make('second', first), make('third'), first])
    assert began == kept == ['third', 'first', 'second'] and not failures


def test_a_failure_ends_what_starts_from_it(began, capsys):
    bad = make('bad')
    kept, failures = run([bad, make('second', bad), make('third'), make('fourth', make('fifth'))])
    assert began == ['bad', 'third', 'fourth'] and kept == ['third', 'fourth']
    assert failures == ['bad: no space left', 'second: what it starts from failed']
    assert capsys.readouterr().out.splitlines() == failures


def test_a_bug_is_told_and_ends_no_other(began):
    kept, failures = run([make('mad'), make('third')])
    assert kept == ['third'] and failures == ["mad: KeyError: 'what'"]


def test_as_many_at_a_time_as_there_are_workers(monkeypatch):
    both = threading.Barrier(2, timeout=30)  # broken when one waits alone

    def run_together(step: Step, command: tuple, *, verbose: bool) -> Result:
        both.wait()
        return Result('', 1.0, 1.0, 1, None, {})

    monkeypatch.setattr(queue, 'run_step', run_together)
    kept, failures = run([make(str(i)) for i in range(4)], workers=2)
    assert kept == ['0', '1', '2', '3'] and not failures


def test_what_keeps_a_result_may_fail(began):
    """Then nothing begins that waits."""

    def keep(key: str, result: Result) -> None:
        raise UserError('disk is full')

    there = Queue(COMMAND, 1, None, Path('jobs'))
    with pytest.raises(UserError, match='disk is full'):
        there.run({str(i): make(str(i)) for i in range(50)}, keep)
    assert len(began) < 50


def test_time_is_over(began):
    kept, failures = run([make('first')], hours=0)
    assert not began and not kept and failures == ['first: not begun, --hours are over']


def test_a_cluster_needs_submitit(monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(UserError, match=r"--cluster needs submitit: pip install 'mmdense\[study\]"):
        run([make('first')], cluster='slurm')

"""Processes that tests start, look for and wait for; ports that they meet at."""

import os
import random
import runpy
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before any mm* import)

import numpy as np  # isort: skip
import torch  # isort: skip
from mmengine.utils import ManagerMixin

from mmdense.engine import launch


def find_port() -> str:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def find_children(parent: int) -> list[int]:
    """The processes that a process has started, as Linux lists them."""
    path = Path(f'/proc/{parent}/task/{parent}/children')
    return [int(child) for child in path.read_text().split()] if path.is_file() else []


def is_alive(process: int) -> bool:
    """Whether a process runs, or is stopped; one that has ended and is not asked for does not."""
    path = Path(f'/proc/{process}/stat')
    return path.is_file() and path.read_text().rpartition(')')[2].split()[0] != 'Z'


def subclasses(parent: type) -> Iterator[type]:
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


def forget_runs() -> None:
    """Drop what mmengine keeps of runs in this process: scopes, loggers, visualizers."""
    for manager in subclasses(ManagerMixin):
        manager._instance_dict.clear()


def fork(log: Path, function: Callable, *args: object, **kwargs: object) -> int:
    """Start a function in a process of its own, which writes to a file; its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    torch.set_num_threads(1)  # a fork has none of the threads that its parent computes with
    forget_runs()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, 'w', 1), os.fdopen(2, 'w', 1)
    code = 1
    try:
        launch.run(lambda: function(*args, **kwargs))
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code)
        else:
            code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int, seconds: float = 60) -> int:
    """The exit code of a process, negative for a signal; after so many seconds it is killed."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise TimeoutError(f'process {pid} did not end within {seconds} s')
        time.sleep(0.02)


def run(log: Path, function: Callable, *args: object, **kwargs: object) -> int:
    return wait(fork(log, function, *args, **kwargs))


def fork_ranks(folder: Path, function: Callable, *args: object, **kwargs: object) -> list[int]:
    """Start a function as the two ranks of one run, connected by gloo, with its rank before its
    arguments; they write to ``log0`` and ``log1`` of a folder. Their process ids."""
    port = find_port()

    def go(rank: int) -> None:
        environ = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2)
        environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        os.environ.update({key: str(value) for key, value in environ.items()})
        for seed in (random.seed, np.random.seed, torch.seed):
            seed()  # or ranks would agree without a word
        function(rank, *args, **kwargs)

    return [fork(folder / f'log{rank}', go, rank) for rank in range(2)]


def run_in_two(folder: Path, script: Path, *args: object) -> None:
    """A script in two processes of one run, as dist_run.sh starts it once it has checked the run;
    raises AssertionError with what they wrote if they fail."""

    def go(rank: int) -> None:
        os.environ['MMDENSE_CHECKED'] = '1'
        sys.argv = [str(script), *map(str, args), '--launcher', 'pytorch']
        runpy.run_path(str(script), run_name='__main__')

    codes = [wait(pid, 280) for pid in fork_ranks(folder, go)]
    assert codes == [0, 0], ''.join((folder / f'log{i}').read_text()[-3000:] for i in range(2))

"""A training that is told to end saves first; what is lost is told in one line."""

import errno
import multiprocessing.util
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT
from processes import find_children, find_port, fork, fork_ranks, is_alive, run, wait
from toy import make_config, train

from mmdense.engine import interrupts, launch, training
from mmdense.engine.interrupts import InterruptHook, Listener, find_command
from mmdense.engine.saving import find_checkpoint
from mmdense.serialization.checkpoint import load_file
from mmdense.tools import dist_launch

KILL = 'os.kill(os.getpid(), {})'


def progress(path: Path) -> tuple[int, int]:
    meta = load_file(path)['meta']
    return meta['epoch'], meta['iter']


@pytest.mark.parametrize(
    'name, code', [('SIGTERM', 143), ('SIGUSR1', 138), ('SIGHUP', 129), ('SIGINT', 130)]
)
def test_saves_says_and_goes_on(tmp_path, name, code):
    log, work_dir = tmp_path / 'log', tmp_path / 'run'
    number = getattr(signal, name)
    hooks = [dict(at=11, code=KILL.format(int(number)))]
    assert run(log, train, work_dir, hooks=hooks) == code
    (line,) = [line for line in log.read_text().splitlines() if name in line]
    assert f"after iteration 11, saved as '{work_dir}/interrupted.pth'" in line
    assert line.endswith('--resume') and 'continue with: python ' in line
    assert 'Traceback' not in log.read_text()
    state = load_file(work_dir / 'interrupted.pth')
    assert progress(work_dir / 'interrupted.pth') == (1, 11)
    assert state['optimizer']['state'] and state['param_schedulers']
    assert (work_dir / 'last_checkpoint').read_text() == 'interrupted.pth'
    if name == 'SIGTERM':
        assert run(log, train, work_dir, resume='auto') == 0
        assert f"resuming from '{work_dir}/interrupted.pth'" in log.read_text()
        assert not (work_dir / 'interrupted.pth').exists()
        assert find_checkpoint(work_dir)[0] == work_dir / 'epoch_3.pth'


def test_iterations(tmp_path):
    hooks = [dict(at=3, code=KILL.format(15))]
    assert run(tmp_path / 'log', train, tmp_path / 'run', max_iters=6, hooks=hooks) == 143
    assert progress(tmp_path / 'run' / 'interrupted.pth') == (0, 3)
    hooks = [dict(at=4, code=KILL.format(15))]
    code = run(tmp_path / 'log', train, tmp_path / 'run', 'auto', max_iters=6, hooks=hooks)
    assert code == 143
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()  # the regular one has it all
    assert "saved as '{}'".format(tmp_path / 'run' / 'iter_4.pth') in (tmp_path / 'log').read_text()


@pytest.mark.parametrize('interval', [1, 5])
def test_during_evaluation(tmp_path, interval):
    """Leaves after the current batch; what was trained since the last checkpoint is kept."""
    hooks = [dict(at=2, where='after_val_iter', code=KILL.format(15))]
    settings = dict(interval=interval, evaluate=True, hooks=hooks)
    assert run(tmp_path / 'log', train, tmp_path / 'run', **settings) == 143
    name = 'epoch_1.pth' if interval == 1 else 'interrupted.pth'
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == [name]
    assert progress(tmp_path / 'run' / name) == (1, 8)
    assert 'acc:' not in (tmp_path / 'log').read_text()


def test_twice_is_at_once(tmp_path):
    code = f'{KILL.format(15)}; {KILL.format(15)}; time.sleep(1.2); {KILL.format(15)}'
    hooks = [dict(at=11, code=code + '; time.sleep(30)')]
    begin = time.monotonic()
    assert run(tmp_path / 'log', train, tmp_path / 'run', hooks=hooks) == 143
    assert time.monotonic() - begin < 20
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']


def test_no_checkpoint_hook(tmp_path):
    def go() -> None:
        cfg = make_config(tmp_path / 'run', hooks=[dict(at=2, code=KILL.format(15))])
        cfg.default_hooks.checkpoint = None
        training.train(cfg)

    assert run(tmp_path / 'log', go) == 143
    assert 'nothing is saved' in (tmp_path / 'log').read_text()


def test_a_full_disk_is_told(tmp_path):
    def go() -> None:
        def fail(path: Path, data: bytes) -> None:
            raise OSError(28, 'No space')

        Path.write_bytes = fail
        train(tmp_path / 'run', hooks=[dict(at=3, code=KILL.format(15))])

    assert run(tmp_path / 'log', go) == 1
    assert "interrupted.pth' cannot be written: No space" in (tmp_path / 'log').read_text()


def are_gone(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def start_with_workers(tmp_path: Path) -> tuple[int, list[int]]:
    out, end = os.pipe()
    hook = dict(at=2, code=f'os.write({end}, b"x")')
    settings = dict(workers=2, seconds=0.1, hooks=[hook])
    pid = fork(tmp_path / 'log', train, tmp_path / 'run', **settings)
    os.read(out, 1)
    workers = find_children(pid)
    assert len(workers) == 2
    return pid, workers


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_workers_do_not_hear_what_the_group_is_told(tmp_path, number):
    pid, workers = start_with_workers(tmp_path)
    os.killpg(pid, number)
    assert wait(pid) == 128 + number
    assert 'DataLoader worker' not in (tmp_path / 'log').read_text()
    assert (tmp_path / 'run' / 'interrupted.pth').is_file()
    assert are_gone(workers, 5)


def test_workers_end_with_their_parent(tmp_path):
    """Also one that is stuck, and does not look whether its parent lives."""
    pid, workers = start_with_workers(tmp_path)
    os.kill(workers[0], signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    assert wait(pid) == -9
    try:
        assert are_gone(workers, 5)
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize('system', ['Linux', 'macOS'])
@pytest.mark.parametrize('code, at', [(0, 99), (143, 11)])
def test_workers_do_not_keep_a_process_that_is_done(tmp_path, code, at, system):
    """They are kept from epoch to epoch, and live when Python asks them to end with it."""

    def go() -> None:
        if system == 'macOS':
            del signal.sigwaitinfo
        try:
            hooks = [dict(at=at, code=KILL.format(15))]
            train(tmp_path / 'run', workers=1, hooks=hooks)
        finally:
            assert len(find_children(os.getpid())) == 1
            multiprocessing.util._exit_function()  # what Python does at its end

    assert wait(fork(tmp_path / 'log', go), 30) == code, (tmp_path / 'log').read_text()


def test_a_worker_that_is_killed(tmp_path):
    pid, workers = start_with_workers(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    assert wait(pid) == 1
    said = (tmp_path / 'log').read_text()
    assert f'error: the data worker with process id {workers[0]} was lost' in said
    assert 'want of memory' in said and '--resume' in said and 'Traceback' not in said


class TestListener:
    def test_handlers_come_back(self):
        before = [signal.getsignal(number) for number in interrupts.SIGNALS]
        interrupts.listen()
        interrupts.listen()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupts._listener.heard == signal.SIGUSR1
        interrupts.stop_listening()
        interrupts.stop_listening()
        assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
        assert signal.set_wakeup_fd(-1) == -1

    def test_what_is_ignored_stays_so(self):
        old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            listener = Listener()
            os.kill(os.getpid(), signal.SIGHUP)
            assert listener.heard == 0
            listener.stop()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, old)

    @pytest.mark.parametrize('connected, patience', [(False, None), (True, 25)])
    def test_patience_with_other_ranks_alone(self, connected, patience, monkeypatch):
        monkeypatch.setattr(interrupts, 'is_distributed', lambda: connected)
        interrupts.listen()
        assert interrupts._listener.patience == patience
        interrupts.stop_listening()
        assert interrupts._listener is None

    def test_another_thread_hears_nothing(self):
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=interrupts.listen)
        thread.start()
        thread.join()
        assert interrupts._listener is None and signal.getsignal(signal.SIGTERM) is before

    def test_the_first_signal_counts(self):
        listener = Listener()
        for number in (signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
        listener.stop()
        assert listener.heard == signal.SIGUSR1

    @pytest.mark.parametrize('settled, code', [(False, 143), (True, 7)])
    def test_patience(self, tmp_path, settled, code):
        """A main thread that waits for something that never comes hears nothing."""

        def hang() -> None:
            listener = Listener(patience=0.3)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            os.kill(os.getpid(), signal.SIGTERM)
            listener.settled = settled
            time.sleep(1)
            os._exit(7)

        assert run(tmp_path / 'log', hang) == code


def test_when_a_training_looks_whether_it_is_told(monkeypatch):
    """After each step and each batch that all ranks have, with the iterations that are done."""
    looked = []
    monkeypatch.setattr(InterruptHook, '_leave_if_told', lambda *args: looked.append(args[2]))
    hook, runner = InterruptHook(), SimpleNamespace(iter=7, val_dataloader=range(2))
    hook.after_train_iter(runner, 0)
    hook.before_val_epoch(runner)
    for batch in range(4):
        hook.after_val_iter(runner, batch)
    hook.after_val_epoch(runner)
    assert looked == [8, 7, 7, 7]


@pytest.mark.parametrize('elsewhere, looks', [(1, 1), (9, 3)])
def test_batches_that_another_rank_has_not_are_passed_over(elsewhere, looks, monkeypatch):
    """That rank would not answer; the one with the fewest counts."""

    def all_reduce(tensor: torch.Tensor, op: str = 'sum') -> None:
        tensor.fill_(dict(sum=lambda *both: sum(both), min=min)[op](int(tensor), elsewhere))

    looked = []
    monkeypatch.setattr(interrupts, 'all_reduce', all_reduce)
    monkeypatch.setattr(InterruptHook, '_leave_if_told', lambda *args: looked.append(args[2]))
    hook, runner = InterruptHook(), SimpleNamespace(iter=7, val_dataloader=range(3))
    hook.before_val_epoch(runner)
    for batch in range(3):
        hook.after_val_iter(runner, batch)
    assert looked == [7] * looks


def test_a_rank_that_heard_nothing_leaves_with_the_others(monkeypatch):
    """Also without a listener, as in another thread; what is saved is the first saver's."""
    monkeypatch.setattr(interrupts, 'is_distributed', lambda: True)
    told = []

    def all_reduce(tensor: torch.Tensor, op: str) -> None:
        told.append((op, int(tensor)))
        tensor.fill_(signal.SIGUSR1)

    monkeypatch.setattr(interrupts, 'all_reduce', all_reduce)
    monkeypatch.setattr(sys, 'argv', ['t/train.py', 'a.py'])
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    said = []
    logger = SimpleNamespace(warning=said.append)
    with pytest.raises(SystemExit) as error:
        InterruptHook()._leave_if_told(SimpleNamespace(hooks=[], logger=logger), 5)
    assert error.value.code == 138 and told == [('max', 0)]
    assert said == [
        'SIGUSR1: stopped after iteration 5, nothing is saved; continue with: '
        'python t/train.py a.py --resume'
    ]


@pytest.mark.parametrize('system', ['linux', 'other'])
def test_an_end_that_follows_the_parents(system, monkeypatch):
    """PR_SET_PDEATHSIG is 1, in prctl(2)."""
    calls = []
    libc = SimpleNamespace(prctl=lambda *args: calls.append(args)) if system == 'linux' else None
    monkeypatch.setattr(interrupts, '_libc', libc)
    interrupts.end_with_parent(signal.SIGTERM)
    assert calls == ([(1, 15, 0, 0, 0)] if libc else [])


@pytest.mark.parametrize(
    'argv, processes, command',
    [
        ('t/train.py a.py', None, 'python t/train.py a.py --resume'),
        ('t/train.py a.py --resume x.pth --amp', None, 'python t/train.py a.py --amp --resume'),
        ('t/train.py a.py --resume --amp', None, 'python t/train.py a.py --amp --resume'),
        ('t/train.py --resume=b a.py', None, 'python t/train.py a.py --resume'),
        ('t/train.py a.py --resume', None, 'python t/train.py a.py --resume'),
        ('t/train.py a.py --work-dir x', '2', 'bash t/dist_train.sh a.py 2 --work-dir x --resume'),
        ('t/train.py --help', '2', 'python t/train.py --help --resume'),
        (
            't/train.py --amp a.py --cfg-options a=b --launcher pytorch',
            '2',
            'bash t/dist_train.sh a.py 2 --amp --cfg-options a=b --resume',
        ),
    ],
)
def test_the_command_that_continues(argv, processes, command):
    environ = {'LOCAL_WORLD_SIZE': processes} if processes else {}
    assert find_command(argv.split(), environ) == command


@pytest.mark.parametrize(
    'text, words',
    [
        ('DataLoader worker (pid 12) is killed by signal: Killed. ', 'process id 12 was lost'),
        ('DataLoader worker (pid(s) 3, 4) exited unexpectedly', 'process id 3, 4 was lost'),
        ('[pair.cc:5] Connection closed by peer [127.0.0.1]:1', 'connection to another rank'),
        ('NCCL error in: x.cpp:2, remote process exited', 'connection to another rank'),
        ('shape mismatch', None),
    ],
)
def test_losses_in_one_line(text, words):
    line = launch.explain_loss(RuntimeError(text))
    assert (words is None and line is None) or (words in line and '--resume' in line)


def train_two(tmp_path: Path, rank_hooks: dict[int, list]) -> list[int]:
    """Two ranks of one training."""

    def go(rank: int) -> None:
        train(tmp_path / 'run', hooks=rank_hooks.get(rank, []))

    return fork_ranks(tmp_path, go)


@pytest.fixture
def port() -> str:
    return find_port()


@pytest.mark.parametrize('rank', [0, 1])
def test_ranks_agree_on_when_to_leave(tmp_path, rank):
    hooks = {rank: [dict(at=3, code=KILL.format(15))]}
    for pid in train_two(tmp_path, hooks):
        assert wait(pid) == 143
    assert progress(tmp_path / 'run' / 'interrupted.pth') == (0, 3)
    said = (tmp_path / 'log0').read_text() + (tmp_path / 'log1').read_text()
    assert len(re.findall('SIGTERM: stopped', said)) == 1 and 'Traceback' not in said


def test_a_rank_that_dies(tmp_path):
    hooks = {1: [dict(at=11, code=KILL.format(9))]}
    one, other = train_two(tmp_path, hooks)
    assert wait(other) == -9
    assert wait(one) == 1
    said = (tmp_path / 'log0').read_text()
    assert 'error: rank 0 lost the connection to another rank' in said
    assert 'Traceback' not in said
    assert find_checkpoint(tmp_path / 'run')[0] == tmp_path / 'run' / 'epoch_2.pth'


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_cannot_be_written(number):
    line = launch.explain_loss(OSError(number, os.strerror(number), 'run/log.json'))
    assert f"'run/log.json' cannot be written: {os.strerror(number)}" in line
    assert launch.explain_loss(FileNotFoundError(errno.ENOENT, 'none', 'x')) is None


@pytest.mark.slow
class TestLauncher:
    """The processes that dist_run.sh starts, and what becomes of them.

    They start Python three times or more. Where that is not the point they are forks of this
    process, which has imported all that they need.
    """

    def start(
        self, tmp_path: Path, port: str, code: str, afresh: bool = False, **settings: object
    ) -> int:
        """The launcher's process id; the second iteration of each rank ends with ``code``."""
        options = ['--nproc_per_node=2', f'--master_port={port}', *settings.pop('options', [])]
        settings = dict(dict(max_epochs=50), **settings, work_dir=str(tmp_path / 'run'))
        settings['hooks'] = [dict(at=2, code=f'open("{tmp_path}/on", "w"); {code}')]
        (tmp_path / 'settings.py').write_text(
            '\n'.join(f'{k} = {v!r}' for k, v in settings.items())
        )
        (tmp_path / 'rank.py').write_text(
            f'import toy\ntoy.start({str(tmp_path / "settings.py")!r})\n'
        )
        options += [] if afresh else ['--run-path', '--start-method=fork']
        command = ['--shutdown-timeout=60', *options, str(tmp_path / 'rank.py')]

        def go() -> None:
            os.chdir(tmp_path)
            os.environ['OMP_NUM_THREADS'] = '1'
            sys.argv = [str(ROOT / 'tools' / 'dist_launch.py'), *command]
            if afresh:
                path = [str(ROOT.parent), str(ROOT / 'tests')]
                os.environ['PYTHONPATH'] = os.pathsep.join(path)
                os.execv(sys.executable, [sys.executable, '-W', 'ignore', *sys.argv])
            dist_launch.main()

        return fork(tmp_path / 'log', go)

    def wait_until_on(self, tmp_path: Path) -> None:
        end = time.monotonic() + 200
        while not (tmp_path / 'on').exists():
            assert time.monotonic() < end, (tmp_path / 'log').read_text()[-2000:]
            time.sleep(0.1)

    @pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
    def test_signals_reach_the_ranks(self, tmp_path, port, number):
        pid = self.start(tmp_path, port, 'time.sleep(0.1)', afresh=True, workers=1, seconds=0.05)
        self.wait_until_on(tmp_path)
        os.kill(pid, number)
        assert wait(pid) == 128 + number
        said = (tmp_path / 'log').read_text()
        assert 'Traceback' not in said and said.count(': stopped after') == 1, said[-3000:]
        assert find_checkpoint(tmp_path / 'run')[0] == tmp_path / 'run' / 'interrupted.pth'

    def test_ranks_end_with_the_launcher(self, tmp_path, port):
        pid = self.start(tmp_path, port, 'pass', seconds=0.05)
        self.wait_until_on(tmp_path)
        ranks = find_children(pid)
        assert len(ranks) == 2
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -9
        assert are_gone(ranks, 30)

    def test_a_lost_rank(self, tmp_path, port):
        code = 'os.environ["RANK"] == "1" and os.kill(os.getpid(), 9)'
        pid = self.start(tmp_path, port, code, afresh=True)
        assert wait(pid, 200) == 1
        said = (tmp_path / 'log').read_text()
        assert 'error: rank 1 ' in said and 'SIGKILL' in said and 'Traceback' not in said

    def test_a_lost_rank_is_started_again(self, tmp_path, port):
        first = 'os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"'
        code = f'os.environ["RANK"] == "1" and {first} and os.kill(os.getpid(), 9)'
        meet = ['--rdzv_backend=c10d', f'--rdzv_endpoint=127.0.0.1:{port}']  # as dist_run.sh
        settings = dict(max_iters=6, interval=1, options=['--max-restarts=1', *meet])
        pid = self.start(tmp_path, port, code, **settings)
        assert wait(pid, 200) == 0, (tmp_path / 'log').read_text()[-3000:]
        assert 'resuming from' in (tmp_path / 'log').read_text()
        assert (tmp_path / 'run' / 'iter_6.pth').is_file()


def test_the_command_that_continues_a_config_by_name():
    argv = ['mmdense train', 'paca/mask_rcnn_paca_s_1x', '--amp']
    assert find_command(argv, {}) == 'mmdense train paca/mask_rcnn_paca_s_1x --amp --resume'
    argv = ['t/train.py', '--amp', 'mask_rcnn_paca_s_1x', '--launcher', 'pytorch']
    command = 'bash t/dist_train.sh mask_rcnn_paca_s_1x 2 --amp --resume'
    assert find_command(argv, {'LOCAL_WORLD_SIZE': '2'}) == command


@pytest.mark.parametrize('is_known', [True, False])
def test_a_pytorch_that_waits_for_no_shutdown(is_known, monkeypatch):
    """2.11's torchrun has no such argument: it is left out, the others stay."""
    parser = SimpleNamespace(format_help=lambda: '--shutdown-timeout' if is_known else '--nnodes')
    given = []
    monkeypatch.setattr(dist_launch, 'get_args_parser', lambda: parser)
    monkeypatch.setattr(dist_launch, 'parse_args', given.extend)
    monkeypatch.setattr(dist_launch, 'run', lambda args: None)
    argv = ['x', '--shutdown-timeout=120', '--nnodes=1', 'tools/train.py']
    monkeypatch.setattr(sys, 'argv', argv)
    monkeypatch.setenv('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    dist_launch.main()
    assert given[1:] == argv[1 if is_known else 2 :]

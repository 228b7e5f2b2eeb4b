"""Signals: a training that is told to end saves first, and says how it goes on.

SIGTERM, SIGUSR1 (what schedulers send some time before), SIGHUP and SIGINT (Ctrl-C) are heard. The
exit code is 128 and the signal's number, as shells have it.
"""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .config import find_own
from .saving import CheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
# Seconds that a rank gives the others to end a step after SIGTERM: one of them may be dead.
PATIENCE = 25
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == 'linux' else None
_listener: Listener | None = None


def end_with_parent(number: signal.Signals) -> None:
    """Let the system send this process a signal when the one that started it ends; on Linux."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class Listener:
    """Hears the signals of a process: the first is noted, and the same once more ends it at once.

    A thread listens, since the main one may wait in a collective for a rank that is dead.

    Args:
        patience: Seconds from a SIGTERM until the process ends, unless it is ``settled`` by then.
    """

    def __init__(self, patience: float | None = None) -> None:
        self.patience = patience
        self.heard = 0
        self.settled = False
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        self._fd = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        # What is ignored, as SIGHUP is below nohup, stays so.
        numbers = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number

    def _listen(self) -> None:
        first: dict[int, float] = {}
        while True:
            wait = None
            if self.patience and signal.SIGTERM in first and not self.settled:
                wait = max(0, first[signal.SIGTERM] + self.patience - time.monotonic())
            if not select.select([self._out], [], [], wait)[0]:
                if not self.settled:
                    os._exit(128 + signal.SIGTERM)
                continue
            for number in os.read(self._out, 64):
                if number == 0:
                    return
                if number in self._handlers:
                    now = time.monotonic()
                    if now - first.setdefault(number, now) > 1:
                        os._exit(128 + number)

    def stop(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd)
        os.write(self._in, b'\0')
        self._thread.join()
        os.close(self._in)
        os.close(self._out)


def listen() -> None:
    """Hear signals from now on; only a main thread can, and another is left as it is."""
    global _listener
    if _listener is None and threading.current_thread() is threading.main_thread():
        _listener = Listener(PATIENCE if is_distributed() else None)


def stop_listening() -> None:
    """End what :func:`listen` began; without that, nothing."""
    global _listener
    if _listener is not None:
        _listener.stop()
        _listener = None


def _leave_signals_to_parent() -> None:
    """In a data worker: signals to the whole group are its parent's, and it ends with that.

    What the parent itself sends ends it: so Python and PyTorch end the workers of a process.
    """
    if _listener is not None:
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        end_with_parent(signal.SIGKILL)
        if hasattr(signal, 'sigwaitinfo'):
            threading.Thread(target=_wait_for_parents_word, daemon=True).start()
        else:  # on macOS nothing tells who sent it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _wait_for_parents_word() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


os.register_at_fork(after_in_child=_leave_signals_to_parent)


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a training that got a signal: at the end of its step, on all ranks alike, and saved.

    The checkpoint is :class:`mmdense.engine.saving.CheckpointHook`'s ``interrupted.pth``, or its
    last one when nothing was trained since. An evaluation ends after its current batch. The same
    signal more than a second later ends the process at once.

    Raises:
        SystemExit: To leave the training, with 128 and the signal's number.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        listen()

    def after_train(self, runner: Runner) -> None:
        stop_listening()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        self._leave_if_told(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        batches = torch.tensor(len(runner.val_dataloader))
        all_reduce(batches, 'min')
        self.shared_batches = int(batches)  # ranks may have one more, of which the others know not

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: object = None,
    ) -> None:
        if batch_idx < self.shared_batches:
            self._leave_if_told(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._leave_if_told(runner, runner.iter)

    def _leave_if_told(self, runner: Runner, iters: int) -> None:
        number = _listener.heard if _listener else 0
        if is_distributed():
            told = torch.tensor(number)
            all_reduce(told, 'max')
            number = int(told)
        if not number:
            return
        if _listener:
            _listener.settled = True
        savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        state = f"saved as '{savers[0].save_now(runner, iters)}'" if savers else 'nothing is saved'
        runner.logger.warning(
            f'{signal.Signals(number).name}: stopped after iteration {iters}, {state}; continue '
            f'with: {find_command(sys.argv, os.environ)}'
        )
        raise SystemExit(128 + number)


def find_command(argv: list[str], environ: dict[str, str]) -> str:
    """The command line that continues the training of this one."""
    tool, *arguments = argv
    if '--resume' in arguments:
        i = arguments.index('--resume')
        has_value = i + 1 < len(arguments) and not arguments[i + 1].startswith('-')
        del arguments[i : i + 1 + has_value]
    arguments = [a for a in arguments if not a.startswith('--resume=')] + ['--resume']
    processes = environ.get('LOCAL_WORLD_SIZE')
    config = next((a for a in arguments if is_config(a)), None)
    if processes is None or config is None:
        start = tool.split() if tool.startswith('mmdense ') else ['python', tool]
        return shlex.join([*start, *arguments])
    arguments.remove(config)
    if '--launcher' in arguments:
        i = arguments.index('--launcher')
        del arguments[i : i + 2]
    script = str(Path(tool).with_name('dist_train.sh'))
    return shlex.join(['bash', script, config, processes, *arguments])


def is_config(argument: str) -> bool:
    """Whether an argument of a command line is a config, by file or by name."""
    return argument.endswith('.py') or find_own(argument) is not None

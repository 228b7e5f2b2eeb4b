"""torchrun, whose end is told in one line: what a signal asks for, or which process was lost.

It takes torchrun's arguments. Signals go on to the processes, and its exit code is 128 and the
signal's number then; 1 when a process was lost.
"""

from __future__ import annotations

import os
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, parse_args, run

LEFT_BY_SIGNAL = (129, 130, 138, 143)  # SIGHUP, SIGINT, SIGUSR1, SIGTERM


def main() -> None:
    # A store for the ranks of each start: the launchers' own mixes up those of a machine that joins
    # later, whose count of restarts is another.
    os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    args = ['--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGUSR1', *sys.argv[1:]]
    if '--shutdown-timeout' not in get_args_parser().format_help():  # PyTorch 2.11 and older
        args = [arg for arg in args if not arg.startswith('--shutdown-timeout=')]
    try:
        run(parse_args(args))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode in LEFT_BY_SIGNAL:
            sys.exit(failure.exitcode)
        if failure.exitcode < 0:
            sys.exit(
                f'error: rank {rank} (process {failure.pid}) was ended by {failure.signal_name()}, '
                "most likely for want of memory; '--resume' continues a training"
            )
        sys.exit(1)  # it has said why


if __name__ == '__main__':
    main()

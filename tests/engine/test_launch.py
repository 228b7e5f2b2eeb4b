"""How a tool begins and ends, alone and among other processes."""

import argparse
import errno
import os
import signal

import pytest
import torch

from mmdense.engine import launch
from mmdense.errors import UserError

LOST = RuntimeError('[pair.cc:5] Connection closed by peer [127.0.0.1]:1')


class LeftError(BaseException):
    """Instead of ``os._exit``."""


def leave(code: int) -> None:
    raise LeftError(code)


@pytest.fixture
def unlaunched(monkeypatch) -> pytest.MonkeyPatch:
    """No launcher's word in the environment, and nobody really leaves or waits."""
    for name in ('TORCHELASTIC_RUN_ID', 'MMDENSE_TRACEBACK', 'RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '')  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, '_exit', leave)
    return monkeypatch


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


def test_an_exit_code_passes(unlaunched):
    calls = []
    unlaunched.setattr(launch, 'disconnect', lambda: calls.append('apart'))
    with pytest.raises(SystemExit) as error:
        launch.run(raising(SystemExit(143)))
    assert error.value.code == 143 and calls == ['apart']
    launch.run(lambda: calls.append('main'))
    assert calls == ['apart', 'main', 'apart']


@pytest.mark.parametrize('code, wanted', [(143, 143), ('a text', 1), (None, 1)])
def test_who_leaves_does_not_wait_for_ranks_that_are_gone(code, wanted, unlaunched):
    unlaunched.setattr(launch, 'disconnect', raising(LOST))
    with pytest.raises(LeftError) as error:
        launch.run(raising(SystemExit(code)))
    assert error.value.args == (wanted,)


def test_control_c(unlaunched):
    with pytest.raises(SystemExit) as error:
        launch.run(raising(KeyboardInterrupt()))
    assert error.value.code == 130


@pytest.mark.parametrize('launched', [False, True])
@pytest.mark.parametrize(
    'error, waits',
    [
        (LOST, True),
        (RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed.'), False),
        (OSError(errno.ENOSPC, 'No space'), False),
        (UserError('mend it'), False),
    ],
)
def test_the_launcher_is_given_time_to_end_the_others(error, waits, launched, unlaunched):
    """Where there is one, and a rank is lost; it also is what a process ends with."""
    waited, parents = [], []
    unlaunched.setattr(launch.time, 'sleep', waited.append)
    unlaunched.setattr(launch, 'end_with_parent', parents.append)
    if launched:
        unlaunched.setenv('TORCHELASTIC_RUN_ID', 'none')
    with pytest.raises(SystemExit) as end:
        launch.run(raising(error))
    assert end.value.code.startswith('error: ') and '\n' not in end.value.code
    assert waited == ([10] if launched and waits else [])
    assert parents == ([signal.SIGTERM] if launched else [])


@pytest.mark.parametrize('connected', [False, True])
def test_the_last_line(connected, unlaunched, capsys):
    """Among other processes without waiting for anything."""
    unlaunched.setattr(torch.distributed, 'is_initialized', lambda: connected)
    with pytest.raises(LeftError if connected else SystemExit) as error:
        launch.stop('error: gone')
    assert error.value.args == ((1,) if connected else ('error: gone',))
    assert capsys.readouterr().err == ('error: gone\n' if connected else '')


def test_nothing_to_part_from(unlaunched):
    unlaunched.setattr(torch.distributed, 'is_initialized', lambda: False)
    unlaunched.setattr(torch.distributed, 'barrier', lambda: 1 / 0)
    launch.disconnect()


@pytest.mark.parametrize(
    'text', ['Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'NCCL', 'gloo']
)
def test_the_rank_that_is_left_is_named(text, unlaunched):
    said = launch.explain_loss(RuntimeError(f'in x: {text} happened'))
    assert said.startswith('rank 0 lost the connection to another rank')
    unlaunched.setenv('RANK', '3')
    assert launch.explain_loss(OSError(text)).startswith('rank 3 lost')


def test_a_disk_without_a_file_name():
    assert launch.explain_loss(OSError(errno.EIO, 'Broken')).startswith(
        "'a file' cannot be written: Broken; '--resume' continues"
    )
    assert launch.explain_loss(OSError(errno.EPERM, 'No', 'x')) is None


def test_flags(tmp_path, unlaunched):
    (tmp_path / 'a.py').write_text('work_dir = None\n')
    parser = argparse.ArgumentParser()
    launch.add_common_arguments(parser)
    launch.add_device(parser)
    path = str(tmp_path / 'a.py')
    args = parser.parse_args([path])
    assert (args.launcher, args.dry_run, args.no_data_check, args.device) == (
        *('none', False, False),
        None,
    )
    cfg = launch.load_config(args)
    assert 'data_check' not in cfg and cfg.work_dir == os.path.join('work_dirs', 'a')
    assert os.environ['LOCAL_RANK'] == '0'
    unlaunched.delenv('LOCAL_RANK')
    options = ['--no-data-check', '--dry-run', '--local_rank', '2', '--device', 'cuda:1']
    args = parser.parse_args([path, *options, '--launcher', 'slurm', '--work-dir', ''])
    cfg = launch.load_config(args)
    assert args.dry_run and args.device == 'cuda:1' and os.environ['LOCAL_RANK'] == '2'
    assert (cfg.data_check, cfg.launcher, cfg.work_dir) == (False, 'slurm', '')
    for wrong in (['--launcher', 'mine'], ['--local-rank', 'x'], ['--cfg-options', 'a']):
        with pytest.raises(SystemExit) as error:
            parser.parse_args([path, *wrong])
        assert error.value.code == 2


def test_every_flag_is_explained():
    """But the one that launchers give, not users."""
    parser = argparse.ArgumentParser()
    launch.add_common_arguments(parser)
    launch.add_device(parser)
    silent = [action.dest for action in parser._actions if not action.help]
    assert silent == ['local_rank']

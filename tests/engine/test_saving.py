"""Nothing is lost: whatever ends a training, and whatever a checkpoint says of files."""

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine import fileio
from processes import fork, run, wait
from torch.utils.data import DataLoader, Dataset
from toy import make_config, train

from mmdense.engine import saving, training
from mmdense.engine.saving import find_checkpoint, lock_work_dir
from mmdense.errors import UserError
from mmdense.files import WholeFileBackend
from mmdense.serialization.checkpoint import load_file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob('*.pth')}


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == 'cut off':
        path.write_bytes(data[: len(data) // 2])
    elif kind == 'empty':
        path.write_bytes(b'')
    else:  # a bit of the ballast's numbers
        place = data.index(bytes(1000))
        path.write_bytes(data[: place + 500] + b'\1' + data[place + 501 :])


class TestBackend:
    def test_it_is_mmengines(self):
        for single in (False, True):
            backend = fileio.get_file_backend('x', enable_singleton=single)
            assert type(backend) is WholeFileBackend
        backend = fileio.get_file_backend(backend_args=dict(backend='local'))
        assert type(backend) is WholeFileBackend

    def test_in_data_workers_too(self):
        class Backends(Dataset):
            def __getitem__(self, index: int) -> str:
                return type(fileio.get_file_backend('x')).__name__

            def __len__(self) -> int:
                return 1

        assert list(DataLoader(Backends(), num_workers=1)) == [['WholeFileBackend']]

    def test_writes_and_reads(self, tmp_path):
        fileio.put(b'abc', tmp_path / 'below' / 'a')
        fileio.put_text('ä', tmp_path / 'b.txt')
        assert fileio.get(tmp_path / 'below' / 'a') == b'abc'
        assert fileio.get_text(tmp_path / 'b.txt') == 'ä'
        assert {path.name for path in tmp_path.rglob('*')} == {'below', 'a', 'b.txt'}

    def test_an_error_changes_nothing(self, tmp_path, monkeypatch):
        path = tmp_path / 'a'
        fileio.put(b'old', path)
        monkeypatch.setattr(os, 'fsync', lambda _: int('x'))
        with pytest.raises(ValueError, match='invalid literal'):
            fileio.put(b'new', path)
        assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize('read', [fileio.get, fileio.get_text])
    def test_only_files_are_read(self, tmp_path, read):
        os.mkfifo(tmp_path / 'pipe')
        for path in ('/dev/zero', tmp_path / 'pipe', tmp_path):
            with pytest.raises(UserError, match='no regular file'):
                read(path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / 'nothing')

    def test_only_files_are_replaced(self, tmp_path):
        os.mkfifo(tmp_path / 'pipe')
        with pytest.raises(UserError, match='no regular file'):
            fileio.put(b'', tmp_path / 'pipe')
        assert (tmp_path / 'pipe').is_fifo()


def killed_at(step: int, work_dir: Path, **settings: object) -> None:
    """Train, but be killed at the n-th of the steps that write, rename and remove."""
    left = [step]

    def killing(function: Callable) -> Callable:
        def wrapped(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ('fsync', 'replace', 'remove', 'unlink'):
        setattr(os, name, killing(getattr(os, name)))
    train(work_dir, **settings)


@pytest.mark.slow
@pytest.mark.parametrize('settings', [dict(), dict(max_iters=4, save_best='acc')])
def test_killed_at_every_step_of_every_save(tmp_path, settings):
    """With one checkpoint kept, there is always a whole one once the first is written."""
    code, step, seen = -9, 0, None
    while code == -9:
        step += 1
        work_dir = tmp_path / str(step)
        code = run(tmp_path / 'log', killed_at, step, work_dir, max_keep_ckpts=1, **settings)
        found, passed = find_checkpoint(work_dir)
        assert not passed, step
        assert found or not seen, step
        seen = found
    assert code == 0 and step > 15
    last = tmp_path / str(step - 3)  # as it was left, with one step to go
    assert run(tmp_path / 'log', train, last, resume='auto', max_keep_ckpts=1, **settings) == 0
    assert not list(last.glob('.*.part*')) and (tmp_path / str(step)).exists()


@pytest.mark.parametrize('by_epoch', [True, False])
def test_which_files_stay(tmp_path, by_epoch):
    settings = dict(max_keep_ckpts=2, save_best=['acc', 'loss'], rule=['greater', 'less'])
    settings.update(published_keys=['meta', 'state_dict'], **({} if by_epoch else {'max_iters': 6}))
    train(tmp_path, **settings)
    word, last, before = ('epoch', 3, 2) if by_epoch else ('iter', 6, 4)
    published = {name for name in names(tmp_path) if '-' in name}
    assert names(tmp_path) - published == {
        f'{word}_{before}.pth',
        f'{word}_{last}.pth',
        f'best_acc_{word}_{last}.pth',
        f'best_loss_{word}_{last}.pth',
    }
    assert len(published) == 3
    assert (tmp_path / 'last_checkpoint').read_text() == f'{word}_{last}.pth'
    assert find_checkpoint(tmp_path) == (tmp_path / f'{word}_{last}.pth', [])


def test_best_that_is_not_beaten_stays(tmp_path):
    train(tmp_path, save_best='loss', rule='greater')
    assert {name for name in names(tmp_path) if 'best' in name} == {'best_loss_epoch_1.pth'}
    hub = load_file(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info']
    assert hub['best_ckpt'] == str(tmp_path / 'best_loss_epoch_1.pth')


@pytest.mark.parametrize('at, name', [(3, 'interrupted.pth'), (4, 'iter_4.pth')])
def test_what_was_trained_since_is_saved(tmp_path, at, name):
    """A checkpoint is written every two iterations: one that has it all is not written again."""
    hooks = [dict(at=at, code='os.kill(os.getpid(), 15)')]
    with pytest.raises(SystemExit):
        train(tmp_path, max_iters=6, hooks=hooks)
    assert (tmp_path / 'last_checkpoint').read_text() == name
    assert load_file(tmp_path / name)['meta']['iter'] == at
    assert (tmp_path / 'interrupted.pth').exists() == (at == 3)


def test_what_cannot_be_removed_is_told_and_the_training_goes_on(tmp_path, monkeypatch):
    def refuse(self: WholeFileBackend, path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(WholeFileBackend, 'remove', refuse)
    train(tmp_path, max_keep_ckpts=1)
    assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}
    said = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        assert f"'{tmp_path / name}' cannot be removed: Permission denied\n" in said


class TestFullDisk:
    def test_no_space(self, tmp_path, monkeypatch):
        write = Path.write_bytes

        def fail(path: Path, data: bytes) -> None:
            write(path, data[: len(data) // 2])
            if 'epoch_2' in path.name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, data)

        monkeypatch.setattr(Path, 'write_bytes', fail)
        with pytest.raises(UserError, match=r"epoch_2.pth' cannot be written: No space left"):
            train(tmp_path, max_keep_ckpts=1)
        assert names(tmp_path) == {'epoch_1.pth'}

    def test_limit_of_the_system(self, tmp_path):
        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            train(tmp_path / 'run', ballast=50_000)

        assert run(tmp_path / 'log', limited) == 1
        said = (tmp_path / 'log').read_text()
        assert said.count('error: ') == 1 and 'Traceback' not in said
        assert "epoch_1.pth' cannot be written: File too large" in said
        assert not names(tmp_path / 'run')

    def test_what_was_written_is_looked_at(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            saving, 'find_damage', lambda path: 'it is bad' if 'epoch_2' in str(path) else None
        )
        with pytest.raises(UserError, match=r"epoch_2.pth' is not on the disk as it was written"):
            train(tmp_path, max_keep_ckpts=1)
        assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth'}


HUBS = [
    dict(best_ckpt='{}/precious', best_score=-9.0),
    dict(best_ckpt='{}/precious/best_acc_epoch_1.pth', best_score=-9.0),
    dict(best_ckpt='../precious', best_score=-9.0),
    dict(best_ckpt=['x'], best_score=-9.0),
    dict(best_ckpt=None),
    dict(keep_ckpt_ids=['../precious', 1, 2, 3]),
    dict(keep_ckpt_ids='../precious'),
    dict(keep_ckpt_ids={'a': 1}),
    dict(last_ckpt='{}/precious'),
]


@pytest.mark.parametrize('hub', HUBS, ids=range(len(HUBS)))
def test_a_foreign_checkpoint_removes_nothing_elsewhere(tmp_path, hub):
    precious = tmp_path / 'precious'
    precious.mkdir()
    (precious / 'best_acc_epoch_1.pth').write_text('mine')
    train(tmp_path / 'run', max_epochs=1, save_best='acc')
    state = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    hub = {k: v.format(tmp_path) if isinstance(v, str) else v for k, v in hub.items()}
    state['message_hub']['runtime_info'].update(hub)
    torch.save(state, tmp_path / 'foreign.pth')
    (tmp_path / 'run' / 'mine.pth').write_text('mine')
    settings = dict(max_keep_ckpts=1, save_best='acc')
    train(tmp_path / 'run', resume=str(tmp_path / 'foreign.pth'), **settings)
    assert (precious / 'best_acc_epoch_1.pth').read_text() == 'mine'
    assert (tmp_path / 'run' / 'mine.pth').exists()
    assert {'epoch_3.pth', 'best_acc_epoch_3.pth'} <= names(tmp_path / 'run')


def test_a_moved_work_dir(tmp_path):
    train(tmp_path / 'a', max_epochs=2, save_best='acc', max_keep_ckpts=1)
    shutil.move(tmp_path / 'a', tmp_path / 'b')
    train(tmp_path / 'b', resume='auto', save_best='acc', max_keep_ckpts=1)
    assert names(tmp_path / 'b') == {'epoch_3.pth', 'best_acc_epoch_3.pth'}
    assert not (tmp_path / 'a').exists()


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('trained') / 'run'
    train(folder, ballast=1000, save_best='acc')
    return folder


@pytest.fixture
def work_dir(trained, tmp_path) -> Path:
    """A finished training of three epochs, whose checkpoints were written a minute apart."""
    folder = tmp_path / 'run'
    shutil.copytree(trained, folder)
    return folder


def set_meta(path: Path, **meta: object) -> None:
    state = torch.load(path, weights_only=False)
    state['meta'].update(meta)
    torch.save(state, path)


class TestFindCheckpoint:
    @pytest.mark.parametrize('hint', ['', 'epoch_1.pth', '/nowhere/epoch_9.pth', None])
    def test_last_checkpoint_is_only_a_hint(self, work_dir, hint, capsys):
        path = work_dir / 'last_checkpoint'
        path.unlink() if hint is None else path.write_text(hint)
        cfg = make_config(work_dir)
        training.set_resume(cfg, 'auto')
        assert cfg.resume and cfg.load_from == str(work_dir / 'epoch_3.pth')
        assert f"resuming from '{cfg.load_from}'" in capsys.readouterr().out

    @pytest.mark.parametrize('kind', ['cut off', 'empty', 'damaged'])
    def test_damaged_ones_are_passed_over(self, work_dir, kind, capsys):
        damage(work_dir / 'epoch_3.pth', kind)
        found, (line,) = find_checkpoint(work_dir)
        assert found == work_dir / 'epoch_2.pth'
        assert 'epoch_3.pth' in line and 'passed over: ' in line and line[-1] != ' '
        training.set_resume(make_config(work_dir), 'auto')
        assert line in capsys.readouterr().out

    def test_none_is_whole(self, work_dir):
        for path in work_dir.glob('*.pth'):
            damage(path, 'cut off')
        with pytest.raises(UserError, match=r'no checkpoint is whole.*epoch_1.*epoch_3'):
            training.set_resume(make_config(work_dir), 'auto')

    @pytest.mark.parametrize('folder', ['', 'run'])
    def test_none_is_there(self, work_dir, folder, capsys, tmp_path):
        """Weights alone are no state of a training."""
        for path in work_dir.glob('epoch*.pth'):
            path.unlink()
        (tmp_path / 'last_checkpoint').write_text('epoch_3.pth')
        cfg = make_config(tmp_path / folder)
        cfg.load_from = 'pretrained.pth'
        training.set_resume(cfg, 'auto')
        assert not cfg.resume and cfg.load_from == 'pretrained.pth'
        assert 'starts from the beginning' in capsys.readouterr().out

    def test_newest_by_its_own_time_then_iteration(self, work_dir):
        for i, time in ((1, '20300101_000000'), (2, '20300101_000000'), (3, '20200101_000000')):
            set_meta(work_dir / f'epoch_{i}.pth', time=time)
        os.utime(work_dir / 'epoch_1.pth')
        assert find_checkpoint(work_dir)[0] == work_dir / 'epoch_2.pth'

    def test_odd_contents(self, work_dir):
        set_meta(work_dir / 'epoch_3.pth', iter='many')
        torch.save([1], work_dir / 'list.pth')
        torch.save(dict(meta=3, optimizer={}, message_hub={}), work_dir / 'meta.pth')
        (work_dir / '.hidden.pth').write_bytes(b'')
        found, passed = find_checkpoint(work_dir)
        assert found == work_dir / 'epoch_2.pth' and len(passed) == 3

    def test_folders_as_deepspeed_writes_them(self, work_dir):
        new = work_dir / 'epoch_4.pth'
        new.mkdir()
        os.utime(new, (2e9, 2e9))
        found, (line,) = find_checkpoint(work_dir)
        assert found == work_dir / 'epoch_3.pth' and 'empty folder' in line
        torch.save({}, new / 'states.pt')
        os.utime(new / 'states.pt', (2e9, 2e9))
        assert find_checkpoint(work_dir) == (new, [])
        cfg = make_config(work_dir)
        training.set_resume(cfg, 'auto')
        assert cfg.load_from == str(new) and cfg.resume
        damage(new / 'states.pt', 'cut off')
        assert find_checkpoint(work_dir)[0] == work_dir / 'epoch_3.pth'

    def test_out_dir_of_the_hook(self, tmp_path):
        cfg = make_config(tmp_path / 'run', out_dir=str(tmp_path / 'else'), max_epochs=1)
        training.train(cfg)
        where = tmp_path / 'else' / 'run' / 'epoch_1.pth'
        assert where.is_file()
        assert (tmp_path / 'run' / 'last_checkpoint').read_text() == '../else/run/epoch_1.pth'
        cfg = make_config(tmp_path / 'run', out_dir=str(tmp_path / 'else'))
        training.set_resume(cfg, 'auto')
        assert cfg.load_from == str(where)

    def test_seed_of_the_checkpoint(self, work_dir):
        cfg = make_config(work_dir)
        cfg.randomness = dict(seed=3, deterministic=True)
        training.set_resume(cfg, 'auto')
        seed = load_file(work_dir / 'epoch_3.pth')['meta']['seed']
        assert cfg.randomness == dict(seed=seed, deterministic=True)


class TestLock:
    def test_one_training_at_a_time(self, tmp_path):
        wait_for = dict(at=1, code='os.write(%d, b"x"); time.sleep(60)')
        out, end = os.pipe()
        wait_for['code'] %= end
        pid = fork(tmp_path / 'log', train, tmp_path / 'run', hooks=[wait_for])
        os.read(out, 1)
        before = sorted((tmp_path / 'run').rglob('*'))
        for refused in (saving.check_lock, train):
            with pytest.raises(
                UserError, match=rf'another training \(process {pid} on .*--work-dir'
            ):
                refused(tmp_path / 'run')
        assert sorted((tmp_path / 'run').rglob('*')) == before
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -9
        saving.check_lock(tmp_path / 'run')
        train(tmp_path / 'run', max_epochs=1)

    def test_data_workers_do_not_keep_it(self, tmp_path):
        with lock_work_dir(tmp_path):
            pid = fork(tmp_path / 'log', signal.pause)
        assert run(tmp_path / 'log', saving.check_lock, tmp_path) == 0
        os.kill(pid, signal.SIGKILL)
        wait(pid)

    def test_leftovers_go(self, tmp_path):
        child = fork(tmp_path / 'log', int)
        wait(child)
        left = tmp_path / f'.epoch_1.{child}.part.pth'
        others = [tmp_path / f'.epoch_1.{os.getppid()}.part.pth', tmp_path / '.my.parts']
        for path in (left, *others):
            path.write_text('')
        with lock_work_dir(tmp_path):
            assert not left.exists() and all(path.exists() for path in others)

"""What a training leaves on the disk: whole checkpoints, in a folder that is its alone."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import UserError, last_line
from ..files import replacing
from ..registry import HOOKS
from ..serialization.checkpoint import load_file
from ..serialization.integrity import find_damage

INTERRUPTED = 'interrupted.pth'
RESUMABLE = {'meta', 'optimizer', 'message_hub'}


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """mmengine's, with its arguments; an old checkpoint goes only after the new one is whole.

    Of what a resumed checkpoint says about files, names that this hook gives are believed, and they
    are looked for in ``out_dir`` alone: the work dir may have moved, and a foreign checkpoint
    deletes nothing.
    """

    def before_train(self, runner: Runner) -> None:
        hub = runner.message_hub
        ids = hub.runtime_info.pop('keep_ckpt_ids', None)
        ids = [i for i in ids if type(i) is int] if isinstance(ids, list) else []
        kept = ids[-self.max_keep_ckpts :] if self.max_keep_ckpts > 0 else ids
        if kept:
            hub.update_info('keep_ckpt_ids', kept)
        # Names of files to be removed as soon as the next checkpoint is whole.
        self.outdated = [self.filename_tmpl.format(i) for i in ids[: len(ids) - len(kept)]]
        self.saved: tuple[int, str] | None = None  # the last: after which iteration, and where
        told = {
            key: hub.runtime_info.pop(key)
            for key in list(hub.runtime_info)
            if key.startswith(('best_ckpt', 'last_ckpt'))
        }
        super().before_train(runner)
        for key in self._best_paths():
            name = os.path.basename(str(told.get(key)))
            path = self.file_backend.join_path(self.out_dir, name)
            if self._is_best(name) and self.file_backend.exists(path):
                hub.update_info(key, path)
                self._set_best_path(key, path)

    def _is_best(self, name: str) -> bool:
        number = re.sub(r'\\{.*\\}', r'\\d+', re.escape(self.filename_tmpl))
        return bool(re.fullmatch(rf'best_.+_{number}', name))

    def _best_paths(self) -> dict[str, str | None]:
        """Where the best checkpoints are, by mmengine's names for that."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {'best_ckpt': self.best_ckpt_path}
        return {f'best_ckpt_{key}': self.best_ckpt_path_dict.get(key) for key in self.save_best}

    def _set_best_path(self, key: str, path: str | None) -> None:
        if key == 'best_ckpt':
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key.removeprefix('best_ckpt_')] = path

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self.outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._save(
            runner, self.filename_tmpl.format(step), meta, self.save_optimizer
        )
        if self.save_optimizer:
            self.outdated.append(INTERRUPTED)
        self._remove_outdated(runner)

    def save_now(self, runner: Runner, iters: int | None = None) -> str:
        """Save where the training stands as ``interrupted.pth``, unless a checkpoint has it.

        Args:
            runner: At the end of an iteration, on all ranks.
            iters: Iterations that are finished; by default those before this one, and this one.

        Returns:
            The path of the checkpoint that training can continue from.
        """
        iters = runner.iter + 1 if iters is None else iters
        if self.saved and self.saved[0] == iters:
            return self.saved[1]
        return self._save(runner, INTERRUPTED, dict(epoch=runner.epoch, iter=iters), True)

    def _save(self, runner: Runner, name: str, meta: dict, save_optimizer: bool) -> str:
        """Write a checkpoint of this name, see that it is whole, and point to it."""
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', path)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=save_optimizer,
            save_param_scheduler=self.save_param_scheduler or name == INTERRUPTED,
            meta=meta,
            by_epoch=self.by_epoch and name != INTERRUPTED,  # what FlexibleRunner makes meta from
            backend_args=self.backend_args,
            **self.args,
        )
        if save_optimizer:
            self.saved = meta['iter'], path
        if is_main_process():
            self._check(path)
            with replacing(Path(runner.work_dir, 'last_checkpoint')) as part:
                is_local = isinstance(self.file_backend, LocalBackend)
                part.write_text(os.path.relpath(path, runner.work_dir) if is_local else path)
        return path

    def _check(self, path: str) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            return
        damage = find_damage_below(Path(path))
        if damage:
            raise UserError(
                f"'{path}' is not on the disk as it was written: {damage}; older checkpoints were "
                'kept; check the disk'
            )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        before = self._best_paths()
        for key in before:  # mmengine removes what it knows of before it saves
            self._set_best_path(key, None)
        super()._save_best_checkpoint(runner, metrics)
        for key, new in self._best_paths().items():
            old = before.get(key)
            if new is None:
                self._set_best_path(key, old)
                continue
            if is_main_process():
                self._check(new)
            if old and os.path.basename(old) != os.path.basename(new):
                self.outdated.append(os.path.basename(old))
        self._remove_outdated(runner)

    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        if ckpt_path and self.file_backend.exists(ckpt_path):
            super()._publish_model(runner, ckpt_path)

    def _remove_outdated(self, runner: Runner) -> None:
        current = {os.path.basename(path) for path in self._best_paths().values() if path}
        if self.last_ckpt:
            current.add(os.path.basename(self.last_ckpt))
        if self.max_keep_ckpts > 0:
            current |= {self.filename_tmpl.format(i) for i in self.keep_ckpt_ids}
        outdated, self.outdated = self.outdated, []
        for name in outdated if is_main_process() else ():
            path = self.file_backend.join_path(self.out_dir, name)
            try:
                if name in current or not self.file_backend.exists(path):
                    continue
                if self.file_backend.isdir(path):  # DeepSpeed's
                    self.file_backend.rmtree(path)
                else:
                    self.file_backend.remove(path)
            except OSError as error:
                runner.logger.warning(f"'{path}' cannot be removed: {error.strerror or error}")


def find_damage_below(path: Path) -> str | None:
    """What is wrong with a checkpoint: a file, or a folder of files as DeepSpeed writes it."""
    if not path.is_dir():
        return find_damage(path)
    files = sorted(path.rglob('*.pt'))
    if not files:
        return 'it is an empty folder'
    damages = ((file, find_damage(file)) for file in files)
    return next((f"'{file.name}': {damage}" for file, damage in damages if damage), None)


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that a work dir says is its last, if it is there.

    The pointer is relative to the work dir; mmengine's ``find_latest_checkpoint`` takes it as it
    stands.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    if not pointer.is_file():
        return None
    path = Path(work_dir, pointer.read_text(errors='replace').strip())
    return path if path.is_file() else None


def find_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a folder that a training can continue from.

    Newest by the time, then by the iteration, that it says itself; weights alone do not count.

    Returns:
        Its path, None when there is none, and a line for each file that was passed over.
    """
    found, passed = [], []
    for path in sorted(Path(work_dir).glob('[!.]*.pth')):
        try:
            progress = read_progress(path)
        except (OSError, UserError) as error:  # another process may remove what is listed
            reason = last_line(error).removeprefix(f"checkpoint '{path}' cannot be read: ")
            passed.append(f"'{path}' is passed over: {reason}")
        else:
            if progress:
                found.append((progress, path))
    for _, path in sorted(found, reverse=True):
        damage = find_damage_below(path)
        if damage is None:
            return path, passed
        passed.append(f"'{path}' is passed over: {damage}")
    return None, passed


def read_progress(path: Path) -> tuple[str, int] | None:
    """When a checkpoint was written and after how many iterations; None of weights alone.

    Raises:
        UserError: When the file cannot be read.
    """
    if path.is_dir():
        newest = max(file.stat().st_mtime for file in (path, *path.rglob('*')))
        return time.strftime('%Y%m%d_%H%M%S', time.localtime(newest)), 0
    damage = None if path.stat().st_size else find_damage(path)
    if damage:
        raise UserError(damage)
    meta = get_training_meta(load_file(path, lazily=True))
    return None if meta is None else (str(meta.get('time', '')), meta['iter'])


def get_training_meta(checkpoint: dict) -> dict | None:
    """``meta`` of a checkpoint that training can continue from; None of weights alone.

    Raises:
        UserError: When it does not say how far the training was.
    """
    if not isinstance(checkpoint, dict) or not RESUMABLE <= checkpoint.keys():
        return None
    meta = checkpoint['meta']
    numbers = [meta.get(key) for key in ('epoch', 'iter')] if isinstance(meta, dict) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise UserError('it does not say how many epochs and iterations it was trained')
    return meta


@contextmanager
def lock_work_dir(work_dir: str | Path) -> Iterator[None]:
    """Keep a folder to this process; the system frees it when the process ends, however it does.

    Also removes what processes that died while they wrote have left there.

    Raises:
        UserError: When another training has it.
    """
    path = Path(work_dir, '.lock')
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as file:
        _lock(file.fileno(), fcntl.LOCK_EX, path)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        remove_leftovers(path.parent)
        yield


def check_lock(work_dir: str | Path) -> None:
    """Raise :class:`UserError` when another training has the folder; changes nothing."""
    path = Path(work_dir, '.lock')
    if path.is_file():
        with path.open() as file:
            _lock(file.fileno(), fcntl.LOCK_SH, path)


def _lock(descriptor: int, kind: int, path: Path) -> None:
    # POSIX locks: those of flock would live on in data workers.
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise UserError(
            f"another training ({path.read_text()}) writes to '{path.parent}'; choose another "
            '--work-dir or stop it'
        ) from error
    except OSError as error:
        print_log(
            f"'{path}' cannot be locked ({error.strerror}): let no other training use this folder",
            logger='current',
            level=logging.WARNING,
        )


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of :func:`mmdense.files.replacing` whose process is gone."""
    for path in folder.glob('.*.part*'):
        match = re.fullmatch(r'\..*\.(\d+)\.part(\.\w+)?', path.name)
        if match and not is_another_alive(int(match[1])):
            path.unlink(missing_ok=True)


def is_another_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()

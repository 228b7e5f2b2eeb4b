"""Checkpoint files: safe to read, written whole.

A file is looked through first (:mod:`mmdense.serialization.screening`), then read by PyTorch with
``weights_only=True``; what is not tensors or plain data is rebuilt by checked code
(:mod:`mmdense.serialization.rebuilding`) or refused. Nothing in it is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.logging import print_log
from torch import Tensor

from ..errors import UserError
from ..files import replacing
from .conversion import adopt
from .download import fetch
from .integrity import find_damage, has_checksums
from .published import SCHEME, find_published
from .rebuilding import RECIPES, rebuild
from .screening import screen, starts_as_zip

MAX_NAME = 1000  # characters
# Where checkpoints keep the text of a config, which mmengine would run: at resuming and inferring.
CONFIG_TEXTS = ('cfg', 'config')


def load_file(
    path: str | Path | io.BytesIO,
    lazily: bool = False,
    map_location: object = 'cpu',
    as_published: bool = False,
) -> dict:
    """Read a checkpoint (.pth, .pt or .safetensors) without executing anything in it.

    Args:
        path: A file, a URL, the name of a published one (``mmdense://paca_s_in1k``, see
            :mod:`mmdense.serialization.published`), or the bytes of a file.
        lazily: Leave the numbers of a local .pth file on the disk until they are used: for a look
            at names and shapes, not for what outlives the file. Its checksums are not looked at.
        map_location: Where tensors go, as of ``torch.load``; of .safetensors only a device.
        as_published: Leave the names of tensors that a family's authors saved; else they become
            this project's, and the log says so.

    Returns:
        What the file holds; for safetensors a dict of tensors, or when the file names its classes
        (:func:`save_weights`) ``state_dict`` and ``meta``. The texts of configs are left out.

    Raises:
        UserError: When the file is missing, damaged, or holds more than tensors and plain data.
    """
    shown = 'in memory' if isinstance(path, io.BytesIO) else f"'{path}'"
    source = path if isinstance(path, io.BytesIO) else find_file(path)
    try:
        if isinstance(source, str) and source.endswith('.safetensors'):
            content = load_safetensors(source, map_location)
            return finish(content, shown, as_published)
        if isinstance(source, str) and not starts_as_zip(source):
            source = io.BytesIO(Path(source).read_bytes())  # of these, torch looks for no tar file
        screen(source)
        if isinstance(source, str) and not lazily:
            check_damage(source)
        mmap = lazily and isinstance(source, str)
        with torch.serialization.safe_globals(RECIPES):
            content = torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
        return finish(rebuild(content), shown, as_published)
    except Exception as error:
        # PyTorch explains weights_only at length first, then says what it met.
        text = str(error).partition('WeightsUnpickler error:')[2] or str(error) or repr(error)
        reason = text.strip().splitlines()[0].split('. ')[0]
        raise UserError(f'checkpoint {shown} cannot be read: {reason}') from error


def finish(content: object, shown: str, as_published: bool) -> dict:
    """What was read, checked, and in this project's names; arguments as of :func:`load_file`."""
    checked = clean_content(content)
    return checked if as_published else clean_content(adopt(checked, shown))


def find_file(path: str | Path) -> str:
    """The local file of a path, an address, or the name of a published one.

    Raises:
        UserError: When there is none.
    """
    path = os.path.expanduser(path)
    if path.startswith(('http://', 'https://')):
        return str(fetch(path))
    if path.startswith(SCHEME):
        return str(find_published(path.removeprefix(SCHEME)))
    if '://' in path:
        raise UserError(
            f"checkpoint '{path}': only files, http(s) addresses and {SCHEME} names are read"
        )
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        raise UserError(f"checkpoint '{path}' does not exist as a regular file")
    return path


def check_damage(path: str) -> None:
    """Raise ``ValueError`` when a file's checksums do not fit its bytes."""
    damage = find_damage(path)
    if damage:
        raise ValueError(f'{damage}; restore it from a copy')
    if not has_checksums(path):
        print_log(
            f"checkpoint '{path}' was written without checksums: damage in it would go unnoticed",
            'current',
        )


def load_safetensors(path: str, map_location: object = 'cpu') -> dict:
    """The tensors of a safetensors file; with its classes, if it has them, as a .pth file would."""
    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    state = safetensors.torch.load_file(path, str(device))
    with safetensors.safe_open(path, 'pt') as file:
        metadata = file.metadata() or {}
    if 'dataset_meta' not in metadata:
        return state
    return dict(state_dict=state, meta=dict(dataset_meta=json.loads(metadata['dataset_meta'])))


def clean_content(content: object) -> dict:
    """What was read, without texts of configs, and with names and classes that are such.

    Raises:
        ValueError: When it is no checkpoint.
    """
    if not isinstance(content, dict):
        raise ValueError(f'it holds a {type(content).__name__}, no dict of tensors')
    state = content.get('state_dict', content)
    for entry in (content, state, content.get('meta', {})):
        check_names(entry)
    meta, hub = content.get('meta', {}), content.get('message_hub')
    check_classes(meta)
    check_classes(meta.get('dataset_meta') or {})
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    for entry in (meta, info):
        for name in CONFIG_TEXTS if isinstance(entry, dict) else ():
            entry.pop(name, None)
    return content


def check_names(entry: object) -> None:
    """Raise ``ValueError`` unless this is a dict of printable names."""
    if not isinstance(entry, dict):
        raise ValueError(f'a {type(entry).__name__} is in it where a dict belongs')
    for name in entry:
        if not is_name(name):
            raise ValueError(f'{str(name)[:80]!r} in it is no name, which is a printable text')


def is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME and name.isprintable()


def check_classes(meta: object) -> None:
    """Raise ``ValueError`` unless classes are a list of names, and the palette one of colours.

    What is a text there would be read as the name of a file.
    """
    check_names(meta)
    for key, value in meta.items():
        if value is None or key.lower() not in ('classes', 'palette'):
            continue
        if key.lower() == 'classes' and not (
            isinstance(value, list | tuple) and all(map(is_name, value))
        ):
            raise ValueError(f'its {key} are no list of names')
        if key.lower() == 'palette' and not is_palette(value):
            raise ValueError(f'its {key} is no list of colours (three numbers each)')


def is_palette(value: object) -> bool:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return isinstance(value, list | tuple) and all(
        isinstance(colour, list | tuple)
        and len(colour) == 3
        and all(isinstance(part, int | np.integer) for part in colour)
        for colour in value
    )


def save_weights(
    state: dict[str, Tensor], meta: dict | None, path: str | Path, add_hash: bool = False
) -> Path:
    """Write weights and the names of their classes, the whole file or none.

    Args:
        state: Tensors by name.
        meta: A checkpoint's. Only the classes stay (``dataset_meta``), by which the toolboxes'
            ``init_model`` names predictions; in a .safetensors file they are JSON in its metadata.
        path: A file of that name is replaced at the end, at once. A .safetensors file, or else
            PyTorch's format.
        add_hash: Append the first 8 hex digits of the file's SHA-256 to its name, as OpenMMLab
            does: ``name-1a2b3c4d.pth``. The same weights always get the same name.

    Returns:
        The file that was written.

    Raises:
        UserError: When it cannot be written there.
    """
    path = Path(path)
    classes = get_classes(meta or {})
    if path.suffix == '.safetensors':
        # Clones, since the format refuses tensors that share memory, as tied weights do.
        state = {k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()}
        try:
            text = json.dumps(classes, default=lambda value: value.tolist())  # arrays, as a palette
            data = safetensors.torch.save(state, {'dataset_meta': text} if classes else None)
        except Exception as error:  # the format knows fewer kinds of tensors than PyTorch
            reason = (str(error) or repr(error)).splitlines()[0]
            raise UserError(f"'{path}' cannot be written: {reason}") from error
    else:
        content = dict(state_dict=state)
        if classes:
            content['meta'] = dict(dataset_meta=classes)
        buffer = io.BytesIO()  # into a file, torch would also write the file's name
        torch.save(content, buffer)
        data = buffer.getvalue()
    if add_hash:
        digest = hashlib.sha256(data).hexdigest()
        path = path.with_name(f'{path.stem}-{digest[:8]}{path.suffix}')
    with replacing(path) as part:
        part.write_bytes(data)
    return path


def get_classes(meta: dict) -> dict:
    """``classes``, ``palette`` and the like of a checkpoint's meta, mmengine's or mmcv 1.x's."""
    old = {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    return meta.get('dataset_meta') or old


def get_state_dict(checkpoint: dict) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the wrapper's ``module.`` prefix."""
    state = checkpoint.get('state_dict', checkpoint)
    return {
        key.removeprefix('module.'): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }

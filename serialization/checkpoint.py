"""Checkpoint files: safe to read, written whole.

A file is read with ``weights_only=True`` and a list of harmless classes, never by running what a
pickle asks for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PosixPath

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor
from torch.hub import load_state_dict_from_url

from ..errors import UserError
from ..files import replacing


def get_history_method(owner: object, name: str) -> object:
    """What mmengine's pickled histories look up; any other ``getattr`` is refused."""
    if owner is not HistoryBuffer:
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(HistoryBuffer, name)


# What checkpoints of the toolboxes (mmcv 1.x, mmengine), timm and yacs hold beside tensors.
HARMLESS = [
    Namespace,
    PosixPath,
    HistoryBuffer,
    slice,
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    *(
        (getattr(np._core.multiarray, name), f'{module}.multiarray.{name}')
        for module in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ),
    (get_history_method, 'builtins.getattr'),
    (OrderedDict, 'yacs.config.CfgNode'),  # a dict too; its package need not be installed
]


def load_file(path: str | Path, lazily: bool = False) -> dict:
    """Read a checkpoint file (.pth, .pt or .safetensors) or URL without executing anything in it.

    Args:
        path: The file or URL.
        lazily: Leave the numbers of a local .pth file on the disk until they are used: for a look
            at names and shapes, not for what outlives the file.

    Returns:
        What the file holds; for safetensors a dict of tensors, or when the file names its classes
        (:func:`save_weights`) ``state_dict`` and ``meta``.

    Raises:
        UserError: When the file is missing, damaged, or holds more than tensors and plain data.
    """
    path = os.path.expanduser(path)
    is_url = path.startswith(('http://', 'https://'))
    if not is_url and '://' in path:
        raise UserError(f"checkpoint '{path}': only files and http(s) addresses are read")
    if not is_url and not Path(path).is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    try:
        if is_url and path.endswith('.safetensors'):
            folder = Path(torch.hub.get_dir()) / 'checkpoints'
            folder.mkdir(parents=True, exist_ok=True)
            url, path = path, str(folder / path.rsplit('/', 1)[-1])
            if not Path(path).is_file():
                torch.hub.download_url_to_file(url, path)
            is_url = False
        if path.endswith('.safetensors'):
            return load_safetensors(path)
        with torch.serialization.safe_globals(HARMLESS):
            if is_url:
                return load_state_dict_from_url(path, map_location='cpu', weights_only=True)
            mmap = lazily and zipfile.is_zipfile(path)
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except Exception as error:
        # PyTorch explains weights_only at length first, then says what it met.
        text = str(error).partition('WeightsUnpickler error:')[2] or str(error) or repr(error)
        reason = text.strip().splitlines()[0].split('. ')[0]
        if isinstance(error, KeyError):  # what pickle makes of any other file
            reason = 'it is neither a file of PyTorch nor safetensors'
        raise UserError(f"checkpoint '{path}' cannot be read: {reason}") from error


def load_safetensors(path: str) -> dict:
    """The tensors of a safetensors file; with its classes, if it has them, as a .pth file would."""
    state = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, 'pt') as file:
        metadata = file.metadata() or {}
    if 'dataset_meta' not in metadata:
        return state
    return dict(state_dict=state, meta=dict(dataset_meta=json.loads(metadata['dataset_meta'])))


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
        text = json.dumps(classes, default=np.ndarray.tolist)  # a palette may be an array
        data = safetensors.torch.save(state, {'dataset_meta': text} if classes else None)
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
        if isinstance(value, Tensor)
    }

"""Checkpoint files: safe to read, strict to load, written whole.

A file is read with ``weights_only=True`` and a list of harmless classes, never by running what a
pickle asks for. A pretrained backbone gets all of its tensors or an error that shows which
ones are missing, unexpected or of another shape.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path, PosixPath

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from .errors import UserError
from .files import replacing


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


def load_file(path: str | Path) -> dict:
    """Read a checkpoint file (.pth, .pt or .safetensors) or URL without executing anything in it.

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
            return torch.load(path, map_location='cpu', weights_only=True)
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


def load_pretrained(module: nn.Module, checkpoint: str, **kwargs: str | None) -> int:
    """Load every tensor of ``module`` from a checkpoint file, or raise.

    Takes what :func:`select_pretrained` takes, and raises what it raises.

    Returns:
        How many tensors were loaded; it is logged too, and so are tensors that stay as they are.
    """
    found = select_pretrained(module, checkpoint, **kwargs)
    own = module.state_dict()
    for key in own.keys() - found.keys():
        print_log(
            f'{key} {tuple(own[key].shape)} is not in the file in this shape: kept', 'current'
        )
    module.load_state_dict(found, strict=False)
    print_log(f"loaded {len(found)} of {len(own)} tensors from '{checkpoint}'", 'current')
    return len(found)


def select_pretrained(
    module: nn.Module,
    checkpoint: str,
    prefix: str | None = None,
    may_change_shape: str | None = None,
    may_be_absent: str | None = None,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint file that ``module`` needs, by the module's names.

    Args:
        module: Would receive the tensors; it is not changed.
        checkpoint: File or URL.
        prefix: Only names that start with it are read, e.g. ``'backbone.'`` of a classifier.
        may_change_shape: Pattern of names that are left out where the file has them in another
            shape, with as many channels (the last side).
        may_be_absent: Pattern of names that the file may lack, or have beside the module's.

    Raises:
        UserError: When a tensor is missing, unexpected or of another shape.
    """
    state = get_state_dict(load_file(checkpoint))
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    own = module.state_dict()
    kept = find_exempt(own, found, may_change_shape, may_be_absent)
    loaded = {key: value for key, value in found.items() if key not in kept}
    needed = {key: value for key, value in own.items() if key not in kept}
    problem = describe_mismatch(find_mismatch(needed, loaded), len(needed))
    if problem:
        from .convert import identify  # which imports this module

        name = module.__class__.__name__
        hint = '' if found else f'; the file has {describe_prefixes(state)}'
        held, wanted = identify(found), identify(own)
        if held and wanted and held != wanted:
            hint = f'; the file is of {held}, the config wants {wanted}'
        raise UserError(
            f"'{checkpoint}' (prefix '{prefix}') does not hold this {name}: {problem}{hint}"
        )
    return loaded


def find_exempt(
    own: dict[str, Tensor],
    found: dict[str, Tensor],
    may_change_shape: str | None,
    may_be_absent: str | None,
) -> set[str]:
    """The names in which ``found`` may differ from ``own``, and does."""

    def resized(a: torch.Size, b: torch.Size) -> bool:  # the channels, which come last, agree
        return a != b and len(a) == len(b) and (len(a) == 1 or a[-1] == b[-1])

    exempt = set()
    if may_change_shape:
        exempt |= {
            key
            for key in own.keys() & found.keys()
            if re.search(may_change_shape, key) and resized(own[key].shape, found[key].shape)
        }
    if may_be_absent:
        exempt |= {key for key in own.keys() ^ found.keys() if re.search(may_be_absent, key)}
    return exempt


def find_mismatch(own: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, list[str]]:
    """What keeps ``found`` from being loaded as ``own``, by kind; empty lists when nothing does."""
    return {
        'missing': [key for key in own if key not in found],
        'unexpected': [key for key in found if key not in own],
        'of another shape': [
            f'{key} {tuple(found[key].shape)} for {tuple(value.shape)}'
            for key, value in own.items()
            if key in found and found[key].shape != value.shape
        ],
    }


def describe_mismatch(mismatch: dict[str, list[str]], total: int, examples: int = 3) -> str:
    """A mismatch in one line; empty when there is none."""
    parts = []
    for kind, keys in mismatch.items():
        if keys:
            more = ', ...' if len(keys) > examples else ''
            parts.append(f'{len(keys)} {kind} ({", ".join(keys[:examples])}{more})')
    return f'of {total} tensors, ' + ', '.join(parts) if parts else ''


def describe_prefixes(state: dict[str, Tensor]) -> str:
    """How many tensors lie under each first name, e.g. ``153 backbone.*, 2 head.*``."""
    counts = Counter(key.split('.')[0] for key in state)
    return ', '.join(f'{count} {name}.*' for name, count in counts.most_common(5)) or 'no tensors'

"""Checkpoint files: safe to read, strict to load, and the published files' keys as data.

A file is read with ``weights_only=True`` and mmengine's list of harmless classes, never by running
what a pickle asks for. A pretrained backbone gets all of its tensors or an error that shows which
ones are missing, unexpected or of another shape.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from .errors import UserError


def load_file(path: str | Path) -> dict:
    """Read a checkpoint file (.pth, .pt or .safetensors) or URL without executing anything in it.

    Returns:
        What the file holds; for safetensors a dict of tensors.

    Raises:
        UserError: When the file is missing, damaged, or holds more than tensors and plain data.
    """
    path = str(path)
    is_url = path.startswith(('http://', 'https://'))
    if '://' in path and not is_url:  # torchvision://, open-mmlab://: mmengine knows where
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not is_url and not Path(path).is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            if is_url:
                return load_state_dict_from_url(path, map_location='cpu', weights_only=True)
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f"checkpoint '{path}' cannot be read: {reason}") from error


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
        print_log(f'{key} {tuple(own[key].shape)} has another shape in the file: kept', 'current')
    module.load_state_dict(found, strict=False)
    print_log(f"loaded {len(found)} of {len(own)} tensors from '{checkpoint}'", 'current')
    return len(found)


def select_pretrained(
    module: nn.Module,
    checkpoint: str,
    prefix: str | None = None,
    may_change_shape: str | None = None,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint file that ``module`` needs, by the module's names.

    Args:
        module: Would receive the tensors; it is not changed.
        checkpoint: File or URL.
        prefix: Only names that start with it are read, e.g. ``'backbone.'`` of a classifier.
        may_change_shape: Pattern of names that are left out where the file has them in another
            shape.

    Raises:
        UserError: When a tensor is missing, unexpected or of another shape.
    """
    state = get_state_dict(load_file(checkpoint))
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    own = module.state_dict()
    kept = {
        key
        for key, value in own.items()
        if may_change_shape
        and re.search(may_change_shape, key)
        and key in found
        and found[key].shape != value.shape
    }
    found = {key: value for key, value in found.items() if key not in kept}
    problem = describe_mismatch({k: v for k, v in own.items() if k not in kept}, found)
    if problem:
        name = module.__class__.__name__
        hint = '' if found else f'; the file has {describe_prefixes(state)}'
        raise UserError(
            f"'{checkpoint}' (prefix '{prefix}') does not hold this {name}: {problem}{hint}"
        )
    return found


def describe_mismatch(own: dict[str, Tensor], found: dict[str, Tensor], examples: int = 3) -> str:
    """What keeps ``found`` from being loaded as ``own``, in one line; empty when nothing does."""
    shapes = [key for key in own if key in found and own[key].shape != found[key].shape]
    table = {
        'missing': [key for key in own if key not in found],
        'unexpected': [key for key in found if key not in own],
        'of another shape': [
            f'{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}' for key in shapes
        ],
    }
    parts = []
    for kind, keys in table.items():
        if keys:
            more = ', ...' if len(keys) > examples else ''
            parts.append(f'{len(keys)} {kind} ({", ".join(keys[:examples])}{more})')
    return f'of {len(own)} tensors, ' + ', '.join(parts) if parts else ''


def describe_prefixes(state: dict[str, Tensor]) -> str:
    """How many tensors lie under each first name, e.g. ``153 backbone.*, 2 head.*``."""
    counts = Counter(key.split('.')[0] for key in state)
    return ', '.join(f'{count} {name}.*' for name, count in counts.most_common(5)) or 'no tensors'


# Names of the published PaCa-ViT files -> names of an mmpretrain ImageClassifier with PaCaViT.
PACA_KEYS = [
    (r'^patch_embed\.', r'backbone.stages.0.downsample.'),
    (r'^transition(\d)\.proj\.', r'backbone.stages.\1.downsample.proj.0.'),
    (r'^transition(\d)\.norm\.', r'backbone.stages.\1.downsample.norm.'),
    (r'^stage(\d)\.', lambda m: f'backbone.stages.{int(m[1]) - 1}.blocks.'),
    (r'^norm(\d)\.', lambda m: f'backbone.stages.{int(m[1]) - 1}.norm.'),
    (r'\.norm([12])_before\.', r'.norm\1.'),
    (r'\.mlp\.dwconv\.dwconv\.', r'.mlp.dwconv.'),
    (r'\.clustering\.clustering\.0\.', r'.clustering.dwconv.'),
    (r'\.clustering\.clustering\.2\.', r'.clustering.proj.'),
    (r'\.clustering\.clustering\.4\.', r'.clustering.assign.'),
    (r'^head\.', r'head.fc.'),
]


def convert_paca(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published PaCa-ViT state dict -> the keys and shapes of this project's classifier."""
    converted = {}
    for key, value in state.items():
        for pattern, replacement in PACA_KEYS:
            key = re.sub(pattern, replacement, key)
        if re.search(r'\.clustering\.(proj|assign)\.weight$', key):
            value = value.flatten(1)  # the original's 1x1 convolutions are linear layers here
        converted[key] = value
    return converted

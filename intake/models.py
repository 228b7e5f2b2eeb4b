"""Our models that a data set can train, and what they see of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..engine.building import outline_maps, outline_model
from ..engine.config import find_own, read_config
from ..engine.toolboxes import CLASSIFIER, DETECTOR, SEGMENTOR, TOOLBOXES
from ..errors import UserError
from ..families import FAMILIES
from .folder import CLASSES, DETECTION, INSTANCES, SEMANTIC

KINDS = {DETECTION: DETECTOR, INSTANCES: DETECTOR, SEMANTIC: SEGMENTOR, CLASSES: CLASSIFIER}
RESIZES = ('Resize', 'ResizeEdge')
SIDE = 128  # of the picture that shows a backbone's strides


@dataclass(frozen=True)
class Input:
    """What a model sees of a picture.

    Args:
        strides: Of its backbone's maps.
        scale: (long, short) sides to which its test pipeline resizes, if it does.
    """

    strides: tuple[int, ...]
    scale: tuple[int, int] | None = None

    def get_factor(self, size: tuple[int, int]) -> float:
        """By which a picture of (width, height) is resized."""
        if self.scale is None:
            return 1.0
        return min(self.scale[0] / max(size), self.scale[1] / min(size))


def find_default(task: str) -> str:
    """The config for a task that a CPU can train, of the first family that has one."""
    return next(family.own[task] for family in FAMILIES if task in family.own)


def find_model(name: str | None, task: str) -> Path:
    """The config of a name, with or without its folder, or a task's own.

    Raises:
        UserError: When there is none of that name, or it is of another task.
    """
    default = find_default(task)
    name = name or default
    path = find_own(name)
    if path is None:
        raise UserError(
            f"--model '{name}' is no config of ours: name a file of configs/, for example {default}"
        )
    check_task(read_model(path), name, task)
    return path


@functools.cache
def read_model(path: Path) -> Config:
    """A config of ours, which takes a second to read; nobody changes it."""
    return read_config(str(path))


def check_task(cfg: Config, name: str, task: str) -> None:
    """Raise :class:`UserError` unless a config is of a model for such data."""
    toolbox = TOOLBOXES.get(cfg.get('default_scope'))
    fits = 'backbone' in (cfg.get('model') or {}) and toolbox and toolbox.task == KINDS[task]
    if not fits or (task == DETECTION and has_masks(cfg)):
        raise UserError(
            f"--model '{name}' is not for {task}, which the data are for: one that is, is "
            f'{find_default(task)}'
        )


def has_masks(cfg: Config) -> bool:
    """Whether a detector's data have masks."""
    pipeline = cfg.train_dataloader.dataset.get('pipeline') or ()
    return any(step.get('with_mask') for step in pipeline)


def find_input(cfg: Config) -> Input:
    """The strides of a config's backbone, and the size that its test data are resized to."""
    maps = outline_maps(outline_model(cfg), cfg, SIDE)
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    resizes = [step for step in dataset.get('pipeline', ()) if step['type'] in RESIZES]
    scale = resizes[-1].get('scale') if resizes else None
    sides = sorted(scale, reverse=True) if isinstance(scale, tuple | list) else None
    return Input(tuple(SIDE // m.shape[-1] for m in maps), sides and tuple(sides))

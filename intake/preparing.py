"""From a folder to a config that trains on it, and which says what was decided."""

from __future__ import annotations

import ast
import math
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from ..engine.config import list_configs, read_config
from ..engine.toolboxes import find_toolbox
from ..errors import UserError
from ..files import replacing
from .converting import convert
from .examining import Examination
from .faults import stops
from .fitting import find_batch, find_least
from .kinds import KINDS
from .mending import mend
from .models import find_model, read_model
from .recipe import Recipe, Start, decide, find_most, find_start, write_recipe
from .summary import conclude, describe


def get_place(folder: str | Path) -> Path:
    """Where reports, converted data and configs of a folder go."""
    return Path('work_dirs', Path(folder).resolve().name)


def list_written(place: Path) -> list[Path]:
    """The configs of models of ours that were written there, the newest last."""
    known = {path.stem for path in list_configs().values()}
    paths = [path for path in place.glob('*.py') if path.stem in known]
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def read_root(path: Path) -> str | None:
    """The ``data_root`` of a written config, which is not run for that."""
    line = re.search(r"^data_root = (['\"].*)$", path.read_text('utf-8'), re.MULTILINE)
    try:
        return ast.literal_eval(line[1]) if line else None
    except (SyntaxError, ValueError):
        return None


def check_place(folder: str | Path) -> None:
    """Raise :class:`UserError` where another folder of that name has its configs."""
    place = get_place(folder)
    for path in list_written(place):
        root = read_root(path)
        if root and os.path.realpath(root) != os.path.realpath(folder):
            raise UserError(
                f"'{path}' was written for '{root}', not for '{folder}': move '{place}' "
                'elsewhere, or rename the folder'
            )


def prepare(
    examination: Examination, model: str | None, epochs: int | None, checked: bool = True
) -> tuple[Path, list[str]]:
    """Convert what the toolbox does not read itself, and write the config.

    Args:
        examination: What was found in the folder.
        model: The name of a config of ours, or None for the task's own.
        epochs: As many as are asked for.
        checked: Whether faults stop it; else what has faults is left out.

    Returns:
        The config's file, and what was decided, a line each.

    Raises:
        UserError: When the data have faults, the model is of another task, or another folder's
            config is in its place.
    """
    check_place(examination.folder.root)
    said = [describe(examination), *examination.folder.notes]
    if stops(examination.faults):
        if checked:
            raise UserError(refuse(examination))
        folder, done = mend(examination, in_place=True)
        examination, said = replace(examination, folder=folder), [*said, *done]
    folder = examination.folder
    for split in ('train', 'val'):
        if not folder.splits.get(split):
            raise UserError(f"'{folder.root}' has no picture for the split '{split}'")
    base, place = find_model(model, folder.task), get_place(folder.root)
    data = convert(folder, place / 'data')
    path = place / f'{base.name}'
    start = find_start(base)
    recipe = fit(examination, base, data, epochs, start, path)
    write(path, write_recipe(examination, base, data, recipe, start, str(path.with_suffix(''))))
    decided = [f'model: {base.stem}', start.describe(), *recipe.why]
    return path, [*said, *decided, f"config: '{path}'"]


def fit(
    examination: Examination,
    base: Path,
    data: dict[str, dict],
    epochs: int | None,
    start: Start,
    path: Path,
) -> Recipe:
    """Decide, where there is a GPU after trial steps of the training as it will be.

    Raises:
        UserError: When there are fewer pictures than the model needs at a time, or that many do
            not fit into the GPU's memory.
    """
    cfg = read_model(base)
    least = find_least(cfg)
    pictures = len(examination.folder.splits['train'])
    trial = decide(cfg, pictures, 1, epochs)
    if math.ceil(pictures / trial.processes) < least:
        raise UserError(
            f"--model '{base.stem}' trains on {least} pictures at a time in each process, and "
            f"'train' has {pictures}: choose another, or fewer processes"
        )
    most = max(find_most(cfg, pictures) // trial.processes, least)
    if not torch.cuda.is_available():
        return decide(cfg, pictures, min(find_toolbox(cfg).cpu_batch, most), epochs)
    write(path, write_recipe(examination, base, data, trial, start, str(path.with_suffix(''))))
    return decide(cfg, pictures, find_batch(read_config(str(path)), most, least), epochs)


def write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding='utf-8')


def refuse(examination: Examination) -> str:
    """The line on data with faults."""
    root = examination.folder.root
    kinds = Counter(fault.kind for fault in examination.faults if KINDS[fault.kind].stops)
    first = next(fault for fault in examination.faults if KINDS[fault.kind].stops)
    page = get_place(root) / 'data.html'
    return (
        f"'{root}' has {conclude(examination)}; {first.kind}: {first.where}: {first.text}"
        f"{', ...' if kinds.total() > 1 else ''}; '{page}' lists all, and 'python tools/data.py "
        f"{root} --fix {os.path.normpath(root)}-mended' writes a mended copy (--no-data-check "
        'leaves out what has faults)'
    )


def find_written(folder: str, model: str | None) -> Path | None:
    """The config that was written for a folder, and a model or else the newest of any.

    Raises:
        UserError: When it was written for another folder of that name.
    """
    check_place(folder)
    paths = list_written(get_place(folder))
    found = [path for path in paths if model is None or path.stem == Path(model).stem]
    return found[-1] if found else None

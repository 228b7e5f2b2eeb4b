"""Published weights by name: ``mmdense://paca_s_in1k`` is a file wherever a checkpoint is named.

A name is that of the config that the file belongs to. ``configs/<family>/weights.yml`` says where
its authors keep it; it is downloaded when it is first asked for, and stays as the authors made it.

Environment: ``TORCH_HOME`` or ``XDG_CACHE_HOME`` move the cache, ``MMDENSE_MIRROR`` is the address
of a folder with the files in place of the authors', ``MMDENSE_OFFLINE=1`` (or
``HF_HUB_OFFLINE=1``) keeps to what is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.fileio import load

from ..errors import UserError, suggest
from ..families import FAMILIES
from ..files import config_root
from .download import check_record, fetch

SCHEME = 'mmdense://'
MIRROR = 'MMDENSE_MIRROR'
SUFFIXES = ('.pth', '.pt', '.pth.tar', '.safetensors')


class Published(NamedTuple):
    """A row of a ``configs/<family>/weights.yml``, or a config whose weights nobody published."""

    name: str
    family: str
    kind: str  # 'file', 'folder' or 'none'
    address: str | None
    sha256: str | None
    source: str | None  # the authors' code
    licence: str | None
    note: str | None


@cache
def read_table() -> dict[str, Published]:
    """Every config of the families by name, with where its weights are."""
    rows = [row for family in FAMILIES for row in read_family(family.name)]
    return {row.name: row for row in rows}


def read_family(family: str) -> Iterator[Published]:
    """The rows of one family; without a file ``weights.yml`` its authors published none."""
    folder = config_root() / family
    path = folder / 'weights.yml'
    entry = load(path) if path.exists() else {}
    for config in sorted(folder.glob('*.py')):
        name = config.stem
        file = entry.get('files', {}).get(name)
        yield Published(
            name=name,
            family=family,
            kind=entry['kind'] if file else 'none',
            address=entry.get('base', '') + file if file else None,
            sha256=entry.get('sha256', {}).get(name),
            source=entry.get('source'),
            licence=entry.get('licence'),
            note=entry.get('notes', {}).get(name),
        )


def find_row(name: str) -> Published:
    """The row of a name.

    Raises:
        UserError: When there is none.
    """
    table = read_table()
    if name not in table:
        hint = suggest(name, table) or '; names are those of configs/*/*.py'
        raise UserError(f"'{SCHEME}{name}' is no name of published weights{hint}")
    return table[name]


def find_published(name: str) -> Path:
    """The file of a name, downloaded unless it was before.

    Raises:
        UserError: When it cannot be had, with the step that the user has to take.
    """
    row = find_row(name)
    folder = Path(torch.hub.get_dir()) / 'mmdense'
    for suffix in SUFFIXES:
        path = folder / f'{name}{suffix}'
        if path.is_file():
            check_record(path, row.sha256)
            return path
    if row.kind == 'file':
        return fetch(get_address(row), folder / f'{name}.pth', row.sha256)
    raise UserError(f'{SCHEME}{name}: {explain(row, folder)}')


def get_address(row: Published) -> str:
    """Where a file is downloaded from: the authors' address, or the mirror's."""
    mirror = os.environ.get(MIRROR)
    return f'{mirror.rstrip("/")}/{row.address.rpartition("/")[2]}' if mirror else row.address


def explain(row: Published, folder: Path) -> str:
    """How to come by weights that cannot be downloaded; one line."""
    target = folder / f'{row.name}.pth'
    note = f' ({row.note})' if row.note else ''
    if row.kind == 'folder':
        return (
            f'its authors share it where only a browser gets it: open {row.address}{note} and save '
            f"the checkpoint as '{target}'"
        )
    return (
        f'its authors published no weights of it{note}: train it, for example by bash '
        f'tools/dist_train.sh configs/{row.family}/{row.name}.py 8, and copy the checkpoint to '
        f"'{target}'"
    )

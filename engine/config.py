"""Config files with overrides from the command line."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, DictAction

from ..errors import UserError, last_line, suggest
from ..files import config_root
from .config_words import check_option_words


class KeyValueAction(DictAction):
    """mmengine's key=value parser, whose complaints are argparse's."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        try:
            super().__call__(parser, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            parser.error(f'--cfg-options take key=value: {error}')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """The flag that overrides a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValueAction,
        help='settings that override the config, as key=value; a list is written key="[a,b]" or '
        'key=a,b, without white space',
    )


def list_configs() -> dict[str, Path]:
    """This package's configs by name, ``paca/mask_rcnn_paca_s_1x``."""
    files = sorted(config_root().glob('[!_]*/*.py'))
    return {f'{file.parent.name}/{file.stem}': file for file in files}


def find_own(name: str) -> Path | None:
    """The config of this package that a name with or without folder and suffix stands for."""
    key = name.removeprefix('./').removeprefix('configs/').removesuffix('.py')
    found = [file for full, file in list_configs().items() if key in (full, file.stem)]
    return found[0] if found else None


def find_config(name: str) -> Path:
    """The file of a config: a path, or the name of one of this package's.

    Raises:
        UserError: When there is none.
    """
    with suppress(OSError, ValueError):  # no name that a file could have
        if Path(name).is_file():
            return Path(name)
    found = find_own(name)
    if found is None:
        known = [file.stem for file in list_configs().values()]
        hint = suggest(Path(name).stem, known) or '; configs/ holds those of mmdense'
        raise UserError(f"config '{name}' does not exist{hint}")
    return found


def read_config(path: str, options: dict | None = None) -> Config:
    """A config with overrides; modules that lie beside it can be imported from then on.

    Args:
        path: A file, or the name of one of this package's configs.
        options: Settings that replace the file's.

    Raises:
        UserError: When there is no such config or it cannot be read, or the overrides do not fit
            or start with a word that nothing reads.
    """
    if '::' in path:
        raise UserError(
            f"config '{path}': names with :: are for _base_ in a config; name a file, for example "
            'one of configs/'
        )
    file = find_config(path)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        cfg = Config.fromfile(file)
    except Exception as error:  # it is Python, and whatever goes wrong in it is in the file
        raise UserError(f"config '{path}' cannot be read: {last_line(error)}") from error
    check_option_words(cfg, options or {})
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # mmengine's ways to say so
        raise UserError(f'--cfg-options do not fit this config: {last_line(error)}') from error
    return cfg

"""Config files with overrides from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from ..errors import UserError, last_line
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


def read_config(path: str, options: dict | None = None) -> Config:
    """A config file with overrides.

    Raises:
        UserError: When the file is missing or is not a config, or the overrides do not fit or start
            with a word that nothing reads.
    """
    if '::' in path:
        raise UserError(
            f"config '{path}': names with :: are for _base_ in a config; name a file, for example "
            'one of configs/'
        )
    if not Path(path).is_file():
        raise UserError(f"config '{path}' does not exist; configs/ holds those of mmdense")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # it is Python, and whatever goes wrong in it is in the file
        raise UserError(f"config '{path}' cannot be read: {last_line(error)}") from error
    check_option_words(cfg, options or {})
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # mmengine's ways to say so
        raise UserError(f'--cfg-options do not fit this config: {last_line(error)}') from error
    return cfg

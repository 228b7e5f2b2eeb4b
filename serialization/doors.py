"""The libraries' own ways to read files, led to the safe ones.

mmengine, and through it the toolboxes, would run what a pickle asks for: of a checkpoint that
``weights_only`` refuses, of annotations in .pkl files, of tags in YAML files. After
:func:`install`, which ``import mmdense`` calls, none of these does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import IO

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.infer import BaseInferencer
from mmengine.runner import Runner, checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..errors import UserError, last_line
from .checkpoint import load_file
from .loading import check_numbers
from .published import SCHEME

SCHEMES = ('', 'http://', 'https://', SCHEME)
ALLOW_PICKLE = 'MMDENSE_ALLOW_PICKLE'
MAX_DEPTH = 400  # of YAML; Python's own reader ends at less than 500


def install() -> None:
    """Put the safe readers in the places of mmengine's; again changes nothing."""
    CheckpointLoader.register_scheme(SCHEMES, load_from_mmdense, force=True)
    for name in ('load_from_local', 'load_from_http', '_safe_torch_load', 'load_url'):
        setattr(checkpoint, name, load_from_mmdense)  # what its readers of other schemes call
    register_handler(['pkl', 'pickle'])(GuardedPickleHandler)
    register_handler(['yaml', 'yml'])(SafeYamlHandler)
    if not hasattr(BaseInferencer._init_model, '__wrapped__'):
        BaseInferencer._init_model = _wanting_config(BaseInferencer._init_model)
        Runner.resume = _told_in_one_line(Runner.resume)


def load_from_mmdense(
    filename: str | os.PathLike | IO[bytes], map_location: object = None, **kwargs: object
) -> dict:
    """What mmengine gets of a file, an address, or the bytes of a file.

    Raises:
        UserError: As :func:`load_file`, and when the weights hold numbers that are not finite.
    """
    content = load_file(filename, map_location='cpu' if map_location is None else map_location)
    for entry in ('state_dict', 'ema_state_dict'):
        if isinstance(content.get(entry), dict):
            check_numbers(content[entry], str(filename))
    if 'state_dict' in content:
        content.setdefault('meta', {})  # mmseg looks into it unasked
    else:
        check_numbers(content, str(filename))
    return content


class GuardedPickleHandler(PickleHandler):
    """Writes pickles as ever; reads them only where the user said so."""

    def load_from_fileobj(self, file: IO[bytes], **kwargs: object) -> object:
        """Raise :class:`UserError` unless the environment allows it."""
        if os.environ.get(ALLOW_PICKLE) != '1':
            name = getattr(file, 'name', 'this')
            raise UserError(
                f"'{name}' is a pickle, which runs whatever code is in it: convert it to JSON, or, "
                f'only for a file that you made, set {ALLOW_PICKLE}=1 and it is run'
            )
        return super().load_from_fileobj(file, **kwargs)


class SafeLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
    """YAML's plain data, and the tuples that mmengine writes; read by libyaml where there is one.

    That is ten times as quick, but would overflow the stack where too many things lie in each
    other.
    """

    depth = 0

    def descend_resolver(self, parent: yaml.Node | None, index: object) -> None:
        """Called before each node that lies in another."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f'it is nested more than {MAX_DEPTH} deep')
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        """Called after it."""
        self.depth -= 1
        super().ascend_resolver()


SafeLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class SafeYamlHandler(YamlHandler):
    """mmengine's, without the tags that name functions to call."""

    def load_from_fileobj(self, file: IO[str], **kwargs: object) -> object:
        """Raise :class:`UserError` when it is no YAML of plain data."""
        try:
            return super().load_from_fileobj(file, Loader=SafeLoader)
        except (yaml.YAMLError, RecursionError, UnicodeError) as error:
            name = getattr(file, 'name', 'this')
            raise UserError(
                f"'{name}' is no YAML of plain data: {' '.join(str(error).split())}"
            ) from error


def _wanting_config(init_model: Callable) -> Callable:
    """The inferencers' maker of models, which would run the config's text in a checkpoint."""

    @functools.wraps(init_model)
    def init(
        self: BaseInferencer, cfg: dict, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        if not cfg:
            raise UserError(
                f"checkpoint '{weights}': the config in a checkpoint is not run; name the config "
                'file (model=...)'
            )
        return init_model(self, cfg, weights, device)

    return init


def _told_in_one_line(resume: Callable) -> Callable:
    """mmengine's ``Runner.resume``, which takes the parts of a training's state on trust."""

    @functools.wraps(resume)
    def told(self: Runner, filename: str, *args: object, **kwargs: object) -> None:
        try:
            resume(self, filename, *args, **kwargs)
            if any(type(number) is not int or number < 0 for number in (self.epoch, self.iter)):
                raise ValueError('its meta has no epoch and iter')
        except UserError:
            raise
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"'{filename}' cannot be resumed from, its state does not fit this run: "
                f'{last_line(error)}'
            ) from error

    return told

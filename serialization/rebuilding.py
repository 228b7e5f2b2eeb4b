"""Numpy's arrays, logs and the like out of a checkpoint, rebuilt by checked code.

Their own classes take a state from the pickle as it comes, and a forged one corrupts memory. While
PyTorch unpickles, recipes stand in their place, which keep what the pickle says of them;
:func:`rebuild` then makes the objects from what holds in it, or refuses.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import PosixPath
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

MAX_DEPTH = 100  # of containers in each other
LEAVES = (
    *(type(None), bool, int, float, complex, str, bytes, slice, PosixPath),
    *(torch.Size, torch.dtype, torch.device),
)
NUMBERS_AND_TEXTS = re.compile(r'[biufcSU][1-9]\d{0,8}')  # numpy's kinds, without objects and dates


class Recipe:
    """What a pickle says of an object: a call's arguments and a state, untouched."""

    __slots__ = ('args', 'state')

    def __new__(cls, *args: object) -> Recipe:
        recipe = super().__new__(cls)
        recipe.args, recipe.state = args, None
        return recipe

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def make(self) -> object:
        """The object, its parts rebuilt before.

        Raises:
            UnpicklingError: When arguments or state are forged.
        """
        raise UnpicklingError(f'it holds a bare {type(self).__name__.lower()}')


class ArrayClass(Recipe):
    """``numpy.ndarray``, which ``_reconstruct`` takes."""

    __slots__ = ()


class Method(Recipe):
    """What ``getattr`` finds at a history: mmengine pickles its statistics so."""

    __slots__ = ()

    def make(self) -> None:
        return None


class Dtype(Recipe):
    """``numpy.dtype``."""

    __slots__ = ()

    def make(self) -> np.dtype:
        text = self.args[0] if self.args else None
        if not isinstance(text, str) or not NUMBERS_AND_TEXTS.fullmatch(text):
            raise UnpicklingError(f'it holds numbers of kind {str(text)[:80]!r}')
        # Version, order of the bytes, subarray, names, fields, then sizes that follow from these.
        _, order, *parts = self.state if isinstance(self.state, tuple) else (3, '=', None)
        if order not in ('<', '>', '=', '|') or any(part is not None for part in parts[:3]):
            raise UnpicklingError(f'it holds numbers ({text}) with a state that does not fit')
        return np.dtype(text).newbyteorder(order)


class Array(Recipe):
    """``numpy.core.multiarray._reconstruct``, then the state of an array."""

    __slots__ = ()

    def make(self) -> np.ndarray:
        try:
            *_, shape, dtype, fortran, data = self.state
        except (TypeError, ValueError) as error:
            raise UnpicklingError('it holds an array without its numbers') from error
        return make_array(shape, dtype, data, 'F' if fortran else 'C')


class Scalar(Recipe):
    """``numpy.core.multiarray.scalar``."""

    __slots__ = ()

    def make(self) -> np.generic:
        if len(self.args) != 2:
            raise UnpicklingError('it holds a number without its bytes')
        return make_array((), *self.args)[()]


class History(Recipe):
    """mmengine's ``HistoryBuffer``, the log of one number."""

    __slots__ = ()

    def make(self) -> HistoryBuffer:
        state = self.state if isinstance(self.state, dict) else {}
        values, counts = state.get('_log_history'), state.get('_count_history')
        length = state.get('max_length', 1000000)
        numeric = all(
            isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind in 'biuf'
            for a in (values, counts)
        )
        if not numeric or len(values) != len(counts) or type(length) is not int or length < 1:
            raise UnpicklingError('it holds a log (HistoryBuffer) with a state that does not fit')
        return HistoryBuffer(values, counts, length)


class Options(Recipe):
    """``argparse.Namespace``."""

    __slots__ = ()

    def make(self) -> Namespace:
        state = self.state or {}
        if not isinstance(state, dict) or not all(map(is_option, state)):
            raise UnpicklingError('it holds a Namespace with a state that does not fit')
        return Namespace(**state)


def is_option(name: object) -> bool:
    return isinstance(name, str) and not name.startswith('__')


def make_empty() -> bytes:
    """``bytes()``: of an array without numbers."""
    return b''


NUMPY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')
# For torch.serialization.safe_globals: what stands in for what a pickle names.
RECIPES = [
    slice,
    PosixPath,
    (PosixPath, 'pathlib._local.PosixPath'),
    (ArrayClass, 'numpy.ndarray'),
    (Dtype, 'numpy.dtype'),
    *((Array, f'{module}._reconstruct') for module in NUMPY_MODULES),
    *((Scalar, f'{module}.scalar') for module in NUMPY_MODULES),
    (History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (Method, 'builtins.getattr'),
    (make_empty, 'builtins.bytes'),
    (Options, 'argparse.Namespace'),
    (OrderedDict, 'yacs.config.CfgNode'),  # a dict too; its package need not be installed
]


def make_array(shape: object, dtype: object, data: object, order: str = 'C') -> np.ndarray:
    """An array of its own memory, from exactly as many bytes as it takes."""
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
        raise UnpicklingError('it holds an array that is not numbers or texts')
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise UnpicklingError('it holds an array without a shape')
    if any(type(side) is not int or not 0 <= side < 2**62 for side in shape):
        raise UnpicklingError('it holds an array whose shape is out of range')
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnpicklingError(f'it holds {len(data)} bytes for an array {shape} of {dtype}')
    if dtype.kind == 'U':
        data.decode('utf-32-be' if dtype.str[0] == '>' else 'utf-32-le')
    if dtype.kind == 'b':  # numpy reckons with bytes of 0 and 1
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order)


def rebuild(content: object) -> object:
    """What :data:`RECIPES` stand for, everywhere in what was unpickled; containers are new ones.

    Raises:
        UnpicklingError: When something is forged, refers to itself, or lies too deep.
    """
    done: dict[int, object] = {}
    started: set[int] = set()

    def walk(node: object, depth: int) -> object:
        if isinstance(node, Tensor) or type(node) in LEAVES:
            return node
        key = id(node)  # the root keeps every node alive
        if key not in done:
            if key in started:
                raise UnpicklingError('something in it refers to itself')
            if depth > MAX_DEPTH:
                raise UnpicklingError(f'it is nested more than {MAX_DEPTH} deep')
            started.add(key)
            done[key] = make(node, depth + 1)
        return done[key]

    def make(node: object, depth: int) -> object:
        if isinstance(node, Recipe):
            # A class among the arguments is one of the recipes, which says nothing more.
            args = (arg if isinstance(arg, type) else walk(arg, depth) for arg in node.args)
            copy = type(node)(*args)
            copy.state = walk(node.state, depth)
            return copy.make()
        if type(node) in (list, tuple, set):
            return type(node)([walk(item, depth) for item in node])
        if type(node) in (dict, OrderedDict, Counter):
            items = [(walk(key, depth), walk(value, depth)) for key, value in dict.items(node)]
            new = type(node)()
            new.update(items) if type(node) is not Counter else new.update(dict(items))
            if type(node) is OrderedDict and '_metadata' in vars(node):
                new._metadata = pick_versions(vars(node)['_metadata'])
            return new
        raise UnpicklingError(f'it holds a {type(node).__name__} where data belong')

    return walk(content, 0)


def pick_versions(metadata: object) -> OrderedDict:
    """What a state dict says of its modules' versions, by which torch reads old files."""
    versions = OrderedDict()
    for name, said in dict.items(metadata) if isinstance(metadata, dict) else ():
        version = said.get('version') if type(said) in (dict, OrderedDict) else None
        if isinstance(name, str) and type(version) is int:
            versions[name] = dict(version=version)
    return versions

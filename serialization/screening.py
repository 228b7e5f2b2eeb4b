"""What a checkpoint would build, looked through before anything is built.

PyTorch's ``weights_only`` runs no code of a file, but it takes every size in it on trust, and
forged ones end in memory that no machine has, or in a crash. So the pickle is followed here first,
instruction by instruction, with outlines in the place of objects: only what the toolboxes write
may be called, with arguments that fit the bytes of the file.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import BinaryIO

import torch

MAX_PICKLE = 2**30  # bytes; a long training's histories take some hundred MB
MAX_INSTRUCTIONS = 10_000_000
MAX_DEPTH = 64  # of tuples: Python hashes them recursively, without a limit of its own
ZIP_START = b'PK\x03\x04'
LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a pickle of PyTorch's magic number
LEGACY_PICKLES = 5  # magic number, version, system, contents, keys of the storages

# Bytes of an element, by what pickles call a storage and a dtype.
STORAGES = {
    f'torch.{name}Storage': size
    for size, names in {
        1: ('Bool', 'Byte', 'Char'),
        2: ('BFloat16', 'Half', 'Short'),
        4: ('Float', 'Int'),
        8: ('ComplexFloat', 'Double', 'Long'),
        16: ('ComplexDouble',),
    }.items()
    for name in names
} | {'torch.storage.UntypedStorage': 1}
DTYPES = {
    f'torch.{name}': getattr(torch, name).itemsize
    for name in (
        *('bool', 'uint8', 'int8', 'int16', 'int32', 'int64', 'uint16', 'uint32', 'uint64'),
        *('float16', 'bfloat16', 'float32', 'float64', 'complex64', 'complex128'),
        *('float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz'),
    )
    if hasattr(torch, name)
}
PLAIN = frozenset(
    'NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING'.split()
)
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}


class Name(str):
    """A function or class that a pickle names."""


class Row(tuple):
    """A tuple, with its depth."""

    depth: int


class Outline:
    """A list, dict or set, or what a call would give."""

    def __init__(self, name: str, args: tuple = ()) -> None:
        self.name = name
        self.args = args
        self.filled = False


class Screening:
    """Follows the pickles of one file and raises ``UnpicklingError`` at what may not be in them.

    Args:
        size: Bytes of the file: all tensors together may take a few times that, not more.
        records: Bytes of each storage that the file holds, by key; None where they follow the
            pickles.
    """

    def __init__(self, size: int, records: dict[str, int] | None) -> None:
        self.size = size
        self.records = records
        self.storages: dict[str, tuple[str, int]] = {}
        self.tensor_bytes = 0
        self.hooks: list[Outline] = []

    def run(self, file: BinaryIO) -> None:
        """Follow one pickle to its end."""
        self.stack, self.marked, self.memo = [], [], {}
        for count, (opcode, value, _) in enumerate(pickletools.genops(file)):
            name = opcode.name
            if name in PLAIN:
                self.stack.append(CONSTANTS.get(name, value))
            elif name in ('BINPUT', 'LONG_BINPUT'):
                self.memo[value] = self.stack[-1]
            elif name in ('BINGET', 'LONG_BINGET'):
                self.stack.append(self.memo[value])
            elif name not in STEPS:
                refuse(f'instruction {name} of its pickle is not known')
            else:
                STEPS[name](self, value)
            if count == MAX_INSTRUCTIONS:
                refuse(f'its pickle has more than {MAX_INSTRUCTIONS} instructions')
        if any(hooks.filled for hooks in self.hooks):
            refuse('a tensor in it has hooks')

    def pop_marked(self) -> list:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self, value: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def push_name(self, value: str) -> None:
        name = re.sub('^__builtin__ ', 'builtins ', value).replace(' ', '.')
        if name not in CALLS and name not in VALUES:
            refuse(f'it holds {ODD.get(name, name[:200])}: only tensors and plain data are read')
        self.stack.append(Name(name))

    def push_row(self, items: list) -> None:
        row = Row(items)
        row.depth = 1 + max((i.depth for i in items if type(i) is Row), default=0)
        if row.depth > MAX_DEPTH:
            refuse(f'tuples in it are nested more than {MAX_DEPTH} deep')
        self.stack.append(row)

    def push_tuple(self, length: int) -> None:
        if len(self.stack) < length:
            refuse('its pickle is damaged')
        items, self.stack = self.stack[-length:], self.stack[:-length]
        self.push_row(items)

    def fill(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, Outline) or target.name not in FILLABLE:
            refuse('its pickle puts items into something that takes none')
        target.filled = True

    def call(self, value: None) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or name not in CALLS or type(args) is not Row:
            refuse('its pickle calls something that is no known function')
        CALLS[name](self, args)
        self.stack.append(Outline(name, args))

    def make(self, value: None) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or name not in MADE or args != ():
            refuse('its pickle makes an object of a class that is not known')
        self.stack.append(Outline(name))

    def build(self, value: None) -> None:
        self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Outline) or target.name not in BUILT:
            refuse('its pickle changes an object that must stay as it is')
        target.filled = True

    def push_storage(self, value: None) -> None:
        kind, storage, key, _, count, *view = take_row(self.stack.pop(), 'storage')
        if kind != 'storage' or storage not in STORAGES or type(key) is not str:
            refuse(f'it holds a storage of kind {str(storage)[:80]}')
        check_sizes((count,))
        number = count * STORAGES[storage]
        if self.storages.setdefault(key, (storage, number)) != (storage, number):
            refuse(f"its storage '{key[:80]}' has two sizes")
        found = self.size if self.records is None else self.records.get(key, -1)
        if number > found or (self.records is not None and number != found):
            refuse(f"its storage '{key[:80]}' has not the {number} bytes that it declares")
        if view and view != [None]:
            _, start, count = take_row(view[0], 'storage')
            check_sizes((start, count))
            if start + count > number // STORAGES[storage]:
                refuse(f"a part of its storage '{key[:80]}' lies outside it")
        self.stack.append(Outline('storage', (storage, count)))

    def check_tensor(self, args: tuple) -> None:
        """``_rebuild_tensor``; with a gradient flag and hooks ``_v2``, with a dtype ``_v3``."""
        storage, start, shape, strides, *rest = args
        if not isinstance(storage, Outline) or storage.name != 'storage':
            refuse('a tensor in it has no storage')
        if isinstance(shape, Outline) and shape.name == 'torch.Size':
            shape = shape.args[0]
        check_sizes((start,))
        check_sizes(shape)
        check_sizes(strides)
        kind, count = storage.args
        width = STORAGES[kind]
        if len(rest) > 2 and type(rest[2]) is Name:
            if rest[2] not in DTYPES:
                refuse(f'it holds a tensor of {rest[2]}')
            count = count * width // DTYPES[rest[2]]
            width = DTYPES[rest.pop(2)]
        number = 1
        for side in shape:
            number *= side
        last = sum((side - 1) * stride for side, stride in zip(shape, strides))
        if len(shape) != len(strides) or (number and start + last >= count):
            refuse(f'a tensor in it of {number} elements lies outside its storage of {count}')
        self.tensor_bytes += number * width
        if self.tensor_bytes > 16 * self.size + 2**26:
            refuse(
                f'its tensors would take more than {self.tensor_bytes} bytes, it has {self.size}'
            )
        if rest[2:] not in ([], [None]):
            refuse('a tensor in it is a view of another kind (conjugate or negative)')
        self.check_hooks(rest)

    def check_parameter(self, args: tuple) -> None:
        tensor, *rest = args
        if not isinstance(tensor, Outline) or not tensor.name.startswith('torch._utils._rebuild'):
            refuse('a parameter in it has no tensor')
        self.check_hooks(rest)

    def check_hooks(self, rest: list) -> None:
        if not rest:
            return
        if type(rest[0]) is not bool:
            refuse('a tensor in it does not say whether it has a gradient')
        for hooks in rest[1:2]:
            if isinstance(hooks, Outline) and hooks.name == 'collections.OrderedDict':
                self.hooks.append(hooks)
                if hooks.args == ():
                    continue
            if hooks is not None:
                refuse('a tensor in it has hooks')


def refuse(reason: str) -> None:
    raise UnpicklingError(reason)


def take_row(value: object, what: str) -> Row:
    if type(value) is not Row:
        refuse(f'a {what} in it is not described by a tuple')
    return value


def check_sizes(sizes: object) -> None:
    """A tuple of whole numbers that are not negative."""
    if not isinstance(sizes, tuple) or len(sizes) > 64:
        refuse('a shape in it is no tuple')
    if any(type(side) is not int or not 0 <= side < 2**62 for side in sizes):
        refuse('a size in it is no number, or out of range')


def takes(*kinds: object) -> Callable[[Screening, tuple], None]:
    """Arguments of these kinds: types, :class:`Name` or an outline's name; a list is a choice.

    Of the kind before a final ``...`` there may be any number.
    """

    def check(screening: Screening, args: tuple) -> None:
        wanted = kinds
        if kinds[-1:] == (...,):
            wanted = kinds[:-2] + kinds[-2:-1] * (len(args) - len(kinds) + 2)
        if len(args) != len(wanted) or not all(map(fits, args, wanted)):
            refuse('its pickle calls a function with arguments that do not fit')

    return check


def fits(value: object, kind: object) -> bool:
    if isinstance(kind, list):
        return any(fits(value, choice) for choice in kind)
    if isinstance(kind, type):
        return type(value) is kind
    if isinstance(kind, Name):
        return type(value) is Name and value == kind
    return isinstance(value, Outline) and value.name == kind


def check_sides(screening: Screening, args: tuple) -> None:
    check_sizes(args[0] if len(args) == 1 else None)


def check_pairs(screening: Screening, args: tuple) -> None:
    """Nothing, or a list."""
    (takes('list') if args else takes())(screening, args)


def check_bytes(screening: Screening, args: tuple) -> None:
    """Bytes as pickles of PyTorch's protocol have them: a text, to be encoded byte by byte."""
    takes(str, str)(screening, args)
    if args[1] != 'latin1':
        refuse(f'it holds bytes in the encoding {args[1][:80]!r}')


BYTES = ['_codecs.encode', 'builtins.bytes', bytes]
NUMPY = ('numpy.core.multiarray.', 'numpy._core.multiarray.')
HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
WHOLE = [int, type(None)]
# What may be called, each with what checks the arguments.
CALLS: dict[str, Callable[[Screening, tuple], None]] = {
    'torch._utils._rebuild_tensor': Screening.check_tensor,
    'torch._utils._rebuild_tensor_v2': Screening.check_tensor,
    'torch._utils._rebuild_tensor_v3': Screening.check_tensor,
    'torch._utils._rebuild_parameter': Screening.check_parameter,
    'torch.Size': check_sides,
    'torch.device': takes(str, int, ...),
    'collections.OrderedDict': check_pairs,
    'collections.Counter': takes('dict'),
    'builtins.set': takes('list'),
    'builtins.complex': takes(float, float),
    'builtins.slice': takes(WHOLE, WHOLE, WHOLE),
    'builtins.getattr': takes(Name(HISTORY), str),
    '_codecs.encode': check_bytes,
    'builtins.bytes': takes(),
    'pathlib.PosixPath': takes(str, ...),
    'pathlib._local.PosixPath': takes(str, ...),
    'numpy.dtype': takes(str, [bool, int], [bool, int]),
    **{f'{module}_reconstruct': takes(Name('numpy.ndarray'), Row, BYTES) for module in NUMPY},
    **{f'{module}scalar': takes('numpy.dtype', BYTES) for module in NUMPY},
}
ODD = {
    'torch._utils._rebuild_sparse_tensor': 'sparse tensors',
    'torch._utils._rebuild_qtensor': 'quantized tensors',
    'torch._utils._rebuild_meta_tensor_no_storage': 'tensors without numbers (meta)',
    'torch._utils._rebuild_nested_tensor': 'nested tensors',
}
MADE = frozenset(('argparse.Namespace', 'yacs.config.CfgNode', 'collections.OrderedDict', HISTORY))
VALUES = MADE | STORAGES.keys() | DTYPES.keys() | {'numpy.ndarray'}
MAPPINGS = ('dict', 'collections.OrderedDict', 'yacs.config.CfgNode')
FILLABLE = frozenset(('list', *MAPPINGS))
BUILT = MADE | {'numpy.dtype', *(f'{module}_reconstruct' for module in NUMPY)}
STEPS: dict[str, Callable[[Screening, object], None]] = {
    'PROTO': lambda self, value: None,
    'STOP': lambda self, value: None,
    'MARK': Screening.mark,
    'GLOBAL': Screening.push_name,
    'EMPTY_LIST': lambda self, value: self.stack.append(Outline('list')),
    'EMPTY_DICT': lambda self, value: self.stack.append(Outline('dict')),
    'EMPTY_SET': lambda self, value: self.stack.append(Outline('set')),
    'EMPTY_TUPLE': lambda self, value: self.push_row([]),
    'TUPLE1': lambda self, value: self.push_tuple(1),
    'TUPLE2': lambda self, value: self.push_tuple(2),
    'TUPLE3': lambda self, value: self.push_tuple(3),
    'TUPLE': lambda self, value: self.push_row(self.pop_marked()),
    'APPEND': lambda self, value: self.fill([self.stack.pop()]),
    'APPENDS': lambda self, value: self.fill(self.pop_marked()),
    'SETITEM': lambda self, value: self.fill([self.stack.pop(), self.stack.pop()]),
    'SETITEMS': lambda self, value: self.fill(self.pop_marked()),
    'REDUCE': Screening.call,
    'NEWOBJ': Screening.make,
    'BUILD': Screening.build,
    'BINPERSID': Screening.push_storage,
}


def starts_as_zip(path: str | Path) -> bool:
    """Whether PyTorch takes a file for one of its present format."""
    with Path(path).open('rb') as file:
        return file.read(len(ZIP_START)) == ZIP_START


def screen(source: str | io.BytesIO) -> None:
    """Raise ``UnpicklingError`` unless a file of ``torch.save`` holds what may be read of it.

    Args:
        source: The path of a file that :func:`starts_as_zip`, or the bytes of any.
    """
    try:
        if isinstance(source, str):
            screen_zip(source, os.path.getsize(source))
            return
        size, start = source.getbuffer().nbytes, source.getvalue()[:512]
        if start.startswith(ZIP_START):
            screen_zip(source, size)
        elif start.startswith(LEGACY_START):
            screen_legacy(source, size)
        else:
            refuse('it is neither a file of PyTorch nor safetensors' if size else 'it is empty')
        source.seek(0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnpicklingError('its pickle is cut off or damaged') from error


def screen_zip(source: str | io.BytesIO, size: int) -> None:
    """PyTorch's format since 1.6: a zip archive of a pickle and a record for every storage."""
    with zipfile.ZipFile(source) as archive:
        listed = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in listed):
        refuse('its records are compressed, as PyTorch never writes them')
    if not isinstance(source, str):
        source.seek(0)  # PyTorch reads on from where it stands
    # From here on through PyTorch's reader, which may find other records than Python's.
    reader = torch._C.PyTorchFileReader(source)
    names = reader.get_all_records()
    if hasattr(reader, 'get_record_size'):
        sizes = {name: reader.get_record_size(name) for name in names}
    else:  # PyTorch 2.11 and older
        lengths = {record.filename.partition('/')[2]: record.file_size for record in listed}
        sizes = {name: lengths[name] for name in names}
    if sum(sizes.values()) > size:
        refuse(f'its records would take {sum(sizes.values())} bytes, it has {size}')
    if sizes.get('data.pkl', 0) > MAX_PICKLE:
        refuse(f'its pickle is longer than {MAX_PICKLE} bytes')
    folder = 'data/'
    records = {k[len(folder) :]: v for k, v in sizes.items() if k.startswith(folder)}
    Screening(size, records).run(io.BytesIO(reader.get_record('data.pkl')))


def screen_legacy(file: io.BytesIO, size: int) -> None:
    """PyTorch's format before 1.6: five pickles, then for each storage its length and bytes."""
    screening = Screening(size, None)
    file.seek(0)
    for _ in range(LEGACY_PICKLES):
        screening.run(file)
    needed = sum(8 + number for _, number in screening.storages.values())
    if needed > size - file.tell():
        refuse(
            f'it is cut off: {needed} bytes of tensors are declared, {size - file.tell()} follow'
        )

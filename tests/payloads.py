"""Files that must not be trusted: their payload touches a marker, or they lie about sizes."""

import io
import json
import os
import pickle
import resource
import struct
import tarfile
import traceback
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from mmdense.errors import UserError

MEMORY = 2**29  # bytes that an answer may take beside what the process has


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return open, (self.marker, 'w')


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, function: object, args: tuple, state: object = None) -> None:
        self.made = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.made


def write_zip(path: Path, data: bytes, compress: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """A file of PyTorch's present format around a pickle."""
    with zipfile.ZipFile(path, 'w', compress) as archive:
        archive.writestr('a/data.pkl', data)
        archive.writestr('a/version', '3\n')
        archive.writestr('a/byteorder', 'little')
        for name, record in more.items():
            archive.writestr(f'a/{name.replace("_", "/")}', record)


def write_text(path: Path, text: bytes, **more: bytes) -> None:
    write_zip(path, b'\x80\x02' + text + b'.', **more)


def tensor_text(shape: bytes, strides: bytes, count: int = 1, offset: bytes = b'K\x00') -> bytes:
    """A dict of one tensor, with forged numbers."""
    storage = (
        b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu'
    )
    return (
        b'}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n('
        + storage
        + b'J'
        + struct.pack('<i', count)
        + b'tQ'
        + offset
        + shape
        + strides
        + b'\x89ccollections\nOrderedDict\n)RtRs'
    )


LARGE = b'\x8a\x06' + (2**40).to_bytes(6, 'little')
NUMPY = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R'.replace(
    b'C\x01b', b'c_codecs\nencode\nX\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R'
)
FLOAT64 = b'cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R'


def save_tar(path: Path) -> None:
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
        for name in ('storages', 'tensors', 'pickle'):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def save_compressed(path: Path, size: int = 2**24) -> None:
    write_zip(
        path, b'\x80\x02}X\x01\x00\x00\x00ax' + b'K\x01s.', zipfile.ZIP_DEFLATED, data_0=bytes(size)
    )


def save_cycle(path: Path) -> None:
    content = dict(state_dict={})
    content['meta'] = content
    torch.save(content, path)


def nest(kind: bytes, depth: int) -> bytes:
    return b'}X\x01\x00\x00\x00a' + kind * depth + b's'


# Each writes a file; those that run code would create the marker.
RUNS: dict[str, Callable[[Path, Path], None]] = {
    'bare_pickle': lambda path, marker: path.write_bytes(pickle.dumps(Payload(marker))),
    'argument': lambda path, marker: torch.save(dict(state_dict={}, args=Payload(marker)), path),
    'weight': lambda path, marker: torch.save(dict(state_dict=dict(a=Payload(marker))), path),
    'legacy': lambda path, marker: torch.save(
        dict(state_dict={}, a=Payload(marker)), path, _use_new_zipfile_serialization=False
    ),
    'protocol_4': lambda path, marker: torch.save(Payload(marker), path, pickle_protocol=4),
    'key': lambda path, marker: torch.save({(Payload(marker), 1): 1}, path),
    'object_array': lambda path, marker: torch.save(
        dict(a=np.array([Payload(marker)], dtype=object)), path
    ),
    'state': lambda path, marker: torch.save(
        dict(a=Call(OrderedDict, (), dict(x=Payload(marker)))), path
    ),
    'getattr': lambda path, marker: write_text(
        path, b'cbuiltins\ngetattr\ncposix\nsystem\nX\x01\x00\x00\x00a\x86R'
    ),
    'system': lambda path, marker: write_text(
        path,
        b'cposix\nsystem\nX'
        + struct.pack('<i', 6 + len(str(marker)))
        + f'touch {marker}'.encode()
        + b'\x85R',
    ),
    'inst': lambda path, marker: write_text(
        path,
        b'(X'
        + struct.pack('<i', 6 + len(str(marker)))
        + f'touch {marker}'.encode()
        + b'iposix\nsystem\n',
    ),
    'codec': lambda path, marker: write_text(
        path, b'c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00idna2\x86R'
    ),
}
LIES: dict[str, Callable[[Path, Path], None]] = {
    'dtype_state': lambda path, marker: write_text(
        path,
        b'}X\x01\x00\x00\x00a'
        + FLOAT64
        + b'(K\x03X\x01\x00\x00\x00<N(X\x01\x00\x00\x00at}'
        + LARGE
        + LARGE
        + b'K\x3ftbs',
    ),
    'array_shape': lambda path, marker: write_text(
        path,
        b'}X\x01\x00\x00\x00a'
        + NUMPY
        + b'(K\x01'
        + LARGE
        + b'\x85'
        + FLOAT64
        + b'\x89c_codecs\nencode\nX\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86Rtbs',
    ),
    'array_objects': lambda path, marker: write_text(
        path,
        b'}X\x01\x00\x00\x00a'
        + NUMPY
        + b'(K\x01K\x01\x85'
        + FLOAT64.replace(b'f8', b'O8')
        + b'\x89](K\x01etbs',
    ),
    'array_state': lambda path, marker: write_text(
        path, b'}X\x01\x00\x00\x00a' + NUMPY + b'K\x01K\x02\x86bs'
    ),
    'scalar_object': lambda path, marker: write_text(
        path,
        b'}X\x01\x00\x00\x00acnumpy.core.multiarray\nscalar\n'
        + FLOAT64.replace(b'f8', b'O8')
        + b'c_codecs\nencode\nX\x08\x00\x00\x00aaaaaaaaX\x06\x00\x00\x00latin1\x86R\x86Rs',
    ),
    'history_state': lambda path, marker: write_text(
        path,
        b'}X\x01\x00\x00\x00acmmengine.logging.history_buffer\nHistoryBuffer\n)\x81'
        b'}X\x0c\x00\x00\x00_log_historyK\x01sbs',
    ),
    'bytearray': lambda path, marker: write_text(
        path, b'cbuiltins\nbytearray\n' + LARGE + b'\x85R'
    ),
    'storage_call': lambda path, marker: write_text(
        path, b'ctorch.storage\nUntypedStorage\n' + LARGE + b'\x85R'
    ),
    'tensor_call': lambda path, marker: write_text(
        path, b'ctorch\nFloatTensor\n' + LARGE + b'\x85R'
    ),
    'storage_size': lambda path, marker: write_text(
        path, tensor_text(b'K\x01\x85', b'K\x01\x85', 2**31 - 1), data_0=bytes(4)
    ),
    'tensor_size': lambda path, marker: write_text(
        path, tensor_text(LARGE + b'\x85', b'K\x01\x85'), data_0=bytes(4)
    ),
    'tensor_offset': lambda path, marker: write_text(
        path, tensor_text(b'K\x01\x85', b'K\x01\x85', offset=LARGE), data_0=bytes(4)
    ),
    'tensor_strides': lambda path, marker: write_text(
        path, tensor_text(LARGE + b'\x85', b'K\x00\x85'), data_0=bytes(4)
    ),
    'tensor_negative': lambda path, marker: write_text(
        path, tensor_text(b'J\xff\xff\xff\xff\x85', b'K\x01\x85'), data_0=bytes(4)
    ),
    'deep_key': lambda path, marker: write_text(path, b'})' + b'\x85' * 300_000 + b'K\x01s'),
    'deep_lists': lambda path, marker: write_text(
        path, b'}X\x01\x00\x00\x00a' + b']' * 50_000 + b'a' * 49_999 + b's'
    ),
    'deep_dicts': lambda path, marker: write_text(
        path, b'}X\x01\x00\x00\x00a' * 1_000 + b'K\x01' + b's' * 1_000
    ),
    'cycle': lambda path, marker: save_cycle(path),
    'memo': lambda path, marker: write_text(path, b'}r\xff\xff\xff\x7f0j\xff\xff\xff\x7e'),
    'long_text': lambda path, marker: write_text(path, b'X\xff\xff\xff\xff' + b'a'),
    'compressed': lambda path, marker: save_compressed(path),
    'tar': lambda path, marker: save_tar(path),
    'legacy_sizes': lambda path, marker: path.write_bytes(
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + pickle.dumps({}, 2)
        + b'\x80\x02'
        + tensor_text(b'K\x01\x85', b'K\x01\x85', 2**31 - 1).replace(
            b'J\xff\xff\xff\x7ft', b'J\xff\xff\xff\x7fNt'
        )
        + b'.'
        + pickle.dumps(['0'], 2)
    ),
    'empty': lambda path, marker: path.write_bytes(b''),
    'noise': lambda path, marker: path.write_bytes(os.urandom(4096)),
}
FILES = RUNS | LIES


def answers(function: Callable[[str], object], paths: Iterable[Path]) -> list[str]:
    """What a function says of each file, in one process of its own: 'UserError: ...', 'done', or
    its traceback.

    Where the process dies, of a signal say, that is the last answer.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            with os.fdopen(write, 'w') as pipe:
                for path in paths:
                    print(json.dumps(answer(function, path)[-20_000:]), file=pipe, flush=True)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = [json.loads(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    return said if status == 0 else [*said, f'died with status {status}']


def answer(function: Callable[[str], object], path: Path) -> str:
    try:
        function(str(path))
        return 'done'
    except UserError as error:
        return f'UserError: {error}'
    except BaseException:
        return traceback.format_exc()

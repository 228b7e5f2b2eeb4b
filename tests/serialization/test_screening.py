"""What a forged file is refused for, before anything of it is built."""

import io
import pickle
import struct
from pickle import UnpicklingError

import pytest
import torch
from payloads import FILES, tensor_text, write_text, write_zip

from mmdense.errors import UserError
from mmdense.serialization import screening
from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.screening import screen

NO_DATA = 'only tensors and plain data are read'
REASONS = {
    'bare_pickle': 'it is neither a file of PyTorch nor safetensors',
    'argument': f'it holds {open.__module__}.open: {NO_DATA}',
    'weight': f'it holds {open.__module__}.open: {NO_DATA}',
    'legacy': f'it holds {open.__module__}.open: {NO_DATA}',
    'protocol_4': 'instruction FRAME of its pickle is not known',
    'key': f'it holds {open.__module__}.open: {NO_DATA}',
    'object_array': f'it holds {open.__module__}.open: {NO_DATA}',
    'state': f'it holds {open.__module__}.open: {NO_DATA}',
    'getattr': f'it holds posix.system: {NO_DATA}',
    'system': f'it holds posix.system: {NO_DATA}',
    'inst': 'instruction INST of its pickle is not known',
    'codec': "it holds bytes in the encoding 'idna2'",
    'dtype_state': 'it holds numbers (f8) with a state that does not fit',
    'array_shape': 'it holds 1 bytes for an array (1099511627776,) of float64',
    'array_objects': "it holds numbers of kind 'O8'",
    'array_state': 'it holds an array without its numbers',
    'scalar_object': "it holds numbers of kind 'O8'",
    'history_state': 'it holds a log (HistoryBuffer) with a state that does not fit',
    'bytearray': f'it holds builtins.bytearray: {NO_DATA}',
    'storage_call': 'its pickle calls something that is no known function',
    'tensor_call': f'it holds torch.FloatTensor: {NO_DATA}',
    'storage_size': "its storage '0' has not the 8589934588 bytes that it declares",
    'tensor_size': 'a tensor in it of 1099511627776 elements lies outside its storage of 1',
    'tensor_offset': 'a tensor in it of 1 elements lies outside its storage of 1',
    'tensor_strides': 'its tensors would take more than 4398046511104 bytes, it has 557',
    'tensor_negative': 'a size in it is no number, or out of range',
    'deep_key': 'tuples in it are nested more than 64 deep',
    'deep_lists': 'it is nested more than 100 deep',
    'deep_dicts': 'it is nested more than 100 deep',
    'cycle': 'something in it refers to itself',
    'memo': 'instruction POP of its pickle is not known',
    'long_text': 'its pickle is cut off or damaged',
    'compressed': 'its records are compressed, as PyTorch never writes them',
    'tar': 'it is neither a file of PyTorch nor safetensors',
    'legacy_sizes': "its storage '0' has not the 8589934588 bytes that it declares",
    'empty': 'it is empty',
    'noise': 'it is neither a file of PyTorch nor safetensors',
}


@pytest.mark.parametrize('kind', FILES)
def test_the_reason_is_the_forged_thing(kind, tmp_path):
    """Of a file and of its bytes; :mod:`test_doors` has the harm that would be done."""
    path = tmp_path / 'a.pth'
    FILES[kind](path, tmp_path / 'marker')
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(UserError) as error:
            load_file(source)
        assert str(error.value).endswith(f' cannot be read: {REASONS[kind]}')
    assert not (tmp_path / 'marker').exists()


def refused(path, text: bytes, reason: str, **records: bytes) -> None:
    write_text(path, text, **records)
    with pytest.raises(UnpicklingError) as error:
        screen(str(path))
    assert str(error.value) == reason


STORAGE = (
    b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ'
)
TENSOR = b'ctorch._utils\n_rebuild_tensor_v2\n('
ENDS = b'K\x00))'  # offset, shape and strides of a number
HOOKS = b'ccollections\nOrderedDict\n)R'
FORGED = {
    'items into a number': (b'K\x01K\x02a', 'its pickle puts items into something that takes none'),
    'items into a tuple': (b')K\x02a', 'its pickle puts items into something that takes none'),
    'a call of a text': (b'X\x01\x00\x00\x00a)R', 'its pickle calls something that is no known f'),
    'arguments that are no tuple': (
        b'ccollections\nOrderedDict\n]R',
        'its pickle calls something that is no known function',
    ),
    'an object of another class': (
        b'ctorch\nSize\n)\x81',
        'its pickle makes an object of a class that is not known',
    ),
    'an object with arguments': (
        b'ccollections\nOrderedDict\nK\x01\x85\x81',
        'its pickle makes an object of a class that is not known',
    ),
    'a state for a list': (b'])b', 'its pickle changes an object that must stay as it is'),
    'a state for a tensor': (
        TENSOR + STORAGE + ENDS + b'\x89' + HOOKS + b'tR}b',
        'its pickle changes an object that must stay as it is',
    ),
    'no storage': (TENSOR + b'K\x01' + ENDS + b'\x89' + HOOKS + b'tR', 'a tensor in it has no st'),
    'a list as storage': (TENSOR + b']' + ENDS + b'\x89NtR', 'a tensor in it has no storage'),
    'a shape that is a list': (
        TENSOR + STORAGE + b'K\x00])\x89NtR',
        'a shape in it is no tuple',
    ),
    'a size that is true': (
        TENSOR + STORAGE + b'K\x00\x88\x85K\x01\x85\x89NtR',
        'a size in it is no number, or out of range',
    ),
    'fewer strides than sides': (
        TENSOR + STORAGE + b'K\x00K\x01\x85)\x89NtR',
        'a tensor in it of 1 elements lies outside its storage of 1',
    ),
    'one element behind the storage': (
        TENSOR + STORAGE + b'K\x01))\x89NtR',
        'a tensor in it of 1 elements lies outside its storage of 1',
    ),
    'a step over the end': (
        TENSOR + STORAGE + b'K\x00K\x02\x85K\x01\x85\x89NtR',
        'a tensor in it of 2 elements lies outside its storage of 1',
    ),
    'a gradient flag that is a number': (
        TENSOR + STORAGE + ENDS + b'K\x01NtR',
        'a tensor in it does not say whether it has a gradient',
    ),
    'hooks that are a number': (
        TENSOR + STORAGE + ENDS + b'\x89K\x01tR',
        'a tensor in it has hooks',
    ),
    'hooks that are there': (
        TENSOR + STORAGE + ENDS + b'\x89' + HOOKS + b'X\x01\x00\x00\x00aK\x01stR',
        'a tensor in it has hooks',
    ),
    'a view of another kind': (
        TENSOR + STORAGE + ENDS + b'\x89N}X\x04\x00\x00\x00conj\x88stR',
        'a tensor in it is a view of another kind (conjugate or negative)',
    ),
    'a parameter of nothing': (
        b'ctorch._utils\n_rebuild_parameter\nN\x89N\x87R',
        'a parameter in it has no tensor',
    ),
    'a storage that is no tuple': (b'X\x01\x00\x00\x000Q', 'a storage in it is not described by a'),
    'a storage of another kind': (
        STORAGE.replace(b'ctorch\nFloatStorage\n', b'ctorch\nfloat32\n'),
        'it holds a storage of kind torch.float32',
    ),
    'a storage without records': (
        STORAGE.replace(b'X\x01\x00\x00\x000', b'X\x01\x00\x00\x001'),
        "its storage '1' has not the 4 bytes that it declares",
    ),
    'a storage of two sizes': (
        STORAGE + STORAGE.replace(b'Float', b'Byte'),
        "its storage '0' has two sizes",
    ),
    'nothing to take': (b'\x87', 'its pickle is damaged'),
}


@pytest.mark.parametrize('kind', FORGED)
def test_what_no_toolbox_writes(kind, tmp_path):
    text, reason = FORGED[kind]
    write_text(tmp_path / 'a.pth', text, data_0=bytes(4))
    with pytest.raises(UnpicklingError) as error:
        screen(str(tmp_path / 'a.pth'))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    'text',
    [
        TENSOR + STORAGE + ENDS + b'\x89NtR',
        TENSOR + STORAGE + ENDS + b'\x89' + HOOKS + b'tR',
        TENSOR + STORAGE + ENDS + b'\x89' + HOOKS + b'NtR',
        TENSOR + STORAGE + b'K\x00K\x05\x85K\x00\x85\x89NtR',  # one number, five times
        TENSOR + STORAGE + b'K\x01K\x00\x85K\x01\x85\x89NtR',  # none
        TENSOR + STORAGE + b'K\x00ctorch\nSize\n)\x85R)\x89NtR',
        STORAGE,
    ],
    ids=range(7),
)
def test_what_is_harmless(text, tmp_path):
    write_text(tmp_path / 'a.pth', text, data_0=bytes(4))
    screen(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'start, count, reason',
    [
        (0, 1, None),
        (0, 2, None),
        (1, 1, None),
        (1, 2, "a part of its storage '0' lies outside it"),
        (3, 0, "a part of its storage '0' lies outside it"),
    ],
)
def test_parts_of_a_storage(start, count, reason, tmp_path):
    """As PyTorch wrote them before 0.4: key, start and length, of a storage of two numbers."""
    part = b'X\x01\x00\x00\x00vK' + bytes([start]) + b'K' + bytes([count]) + b'\x87'
    text = STORAGE.replace(b'K\x01tQ', b'K\x02' + part + b'tQ')
    if reason:
        refused(tmp_path / 'a.pth', text, reason, data_0=bytes(8))
    else:
        write_text(tmp_path / 'a.pth', text, data_0=bytes(8))
        screen(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('legacy', [False, True])
def test_bytes_are_read_like_a_file(legacy):
    """As mmengine gets them from storages of its own; wherever one has read in them before."""
    source = io.BytesIO()
    torch.save(dict(a=torch.arange(3)), source, _use_new_zipfile_serialization=not legacy)
    for _ in range(2):
        assert load_file(source)['a'].tolist() == [0, 1, 2]


def test_a_pytorch_that_tells_no_sizes(tmp_path, monkeypatch):
    """As of 2.11: Python's reader tells them, and bounds what is read as before."""
    monkeypatch.delattr(torch._C.PyTorchFileReader, 'get_record_size')
    torch.save(dict(a=torch.arange(3)), tmp_path / 'a.pth')
    assert load_file(tmp_path / 'a.pth')['a'].tolist() == [0, 1, 2]
    monkeypatch.setattr(screening, 'MAX_PICKLE', 3)
    with pytest.raises(UserError, match='its pickle is longer than 3 bytes'):
        load_file(tmp_path / 'a.pth')


def test_dimensions():
    """As many as PyTorch has, and one more."""
    screening.check_sizes((1,) * 64)
    with pytest.raises(UnpicklingError, match='a shape in it is no tuple'):
        screening.check_sizes((1,) * 65)


def test_limits(tmp_path, monkeypatch):
    """Of instructions and of bytes of a pickle: as many as are allowed, and one more."""
    path = tmp_path / 'a.pth'
    text = b'}' + b'K\x01K\x01s' * 3  # with protocol and end 12 instructions
    write_text(path, text)
    size = len(text) + 3
    monkeypatch.setattr(screening, 'MAX_INSTRUCTIONS', 12)
    monkeypatch.setattr(screening, 'MAX_PICKLE', size)
    screen(str(path))
    monkeypatch.setattr(screening, 'MAX_INSTRUCTIONS', 11)
    refused(path, text, 'its pickle has more than 11 instructions')
    monkeypatch.setattr(screening, 'MAX_PICKLE', size - 1)
    refused(path, text, f'its pickle is longer than {size - 1} bytes')


def test_tuples_in_tuples(tmp_path):
    for depth in (64, 65):
        text = b')' + b'\x85' * (depth - 1)
        if depth == 64:
            write_text(tmp_path / 'a.pth', text)
            screen(str(tmp_path / 'a.pth'))
        else:
            refused(tmp_path / 'a.pth', text, 'tuples in it are nested more than 64 deep')


def test_records_that_share_bytes(tmp_path):
    """PyTorch's reader believes the directory, in which two records may be one."""
    path = tmp_path / 'a.pth'
    write_zip(path, b'\x80\x02}.', data_0=bytes(3000))
    data = bytearray(path.read_bytes())
    at = data.index(b'PK\x01\x02')
    entry = data.rindex(b'PK\x01\x02')
    name = data[entry + 46 : entry + 54]
    assert name == b'a/data/0' and at < entry
    more = bytes(data[entry : data.index(b'PK\x05\x06')]).replace(b'a/data/0', b'a/data/1')
    end = data.index(b'PK\x05\x06')
    count = struct.unpack_from('<H', data, end + 10)[0] + 1
    length = struct.unpack_from('<I', data, end + 12)[0] + len(more)
    struct.pack_into('<HHI', data, end + 8, count, count, length)
    path.write_bytes(bytes(data[:end]) + more + bytes(data[end:]))
    with pytest.raises(UnpicklingError, match=r'its records would take \d+ bytes, it has \d+$'):
        screen(str(path))


@pytest.mark.parametrize('cut', [0, 1, 8, 12])
def test_old_files_that_are_cut_off(cut):
    """Behind the pickles lie a length of eight bytes and the numbers, of each storage."""
    file = io.BytesIO()
    torch.save(dict(a=torch.ones(3)), file, _use_new_zipfile_serialization=False)
    data = file.getvalue()[: len(file.getvalue()) - cut]
    if cut == 0:
        source = io.BytesIO(data)
        screen(source)
        assert source.tell() == 0
        return
    with pytest.raises(UnpicklingError) as error:
        screen(io.BytesIO(data))
    assert str(error.value) == (
        f'it is cut off: 20 bytes of tensors are declared, {20 - cut} follow'
    )


def test_hooks_of_old_files_are_looked_at_too():
    magic, version = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    text = tensor_text(b')', b')', 1).replace(b')RtRs', b')RX\x01\x00\x00\x00aK\x01stRs')
    text = text.replace(b'J\x01\x00\x00\x00t', b'J\x01\x00\x00\x00Nt')
    parts = [magic, version, pickle.dumps({}, 2), b'\x80\x02' + text + b'.', pickle.dumps(['0'], 2)]
    with pytest.raises(UnpicklingError, match='a tensor in it has hooks'):
        screen(io.BytesIO(b''.join(parts) + bytes(12)))


@pytest.mark.parametrize('dtype', [torch.uint16, torch.uint32, torch.uint64])
def test_numbers_without_a_storage_of_their_own(dtype, tmp_path):
    """PyTorch writes them as bytes and says how wide each is."""
    torch.save(dict(x=torch.arange(6).to(dtype)), tmp_path / 'a.pth')
    screen(str(tmp_path / 'a.pth'))
    assert load_file(tmp_path / 'a.pth')['x'].tolist() == [*range(6)]

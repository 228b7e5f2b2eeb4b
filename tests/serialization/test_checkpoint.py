"""Checkpoint files and addresses are read without running what is in them."""

import functools
import pickle
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file
from server import serving

from mmdense.errors import UserError
from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.integrity import find_damage, has_checksums

STATE = {'a.weight': torch.ones(30, 4), 'a.bias': torch.arange(30.0)}


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ('a pickle was executed',))


def test_pickles_are_not_executed(tmp_path):
    path = tmp_path / 'harmful.pth'
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match='cannot be read'):
        load_file(path)
    torch.save(dict(state_dict={}, args=Harmful()), path)
    with pytest.raises(UserError, match='cannot be read'):
        load_file(path)


@pytest.mark.parametrize(
    'text, reason',
    [
        (
            'Weights only load failed. In PyTorch 2.6, we changed the default.\n'
            'Please file an issue with the following so that we can make it better: '
            'WeightsUnpickler error: Unsupported operand 149\n\nCheck the documentation.',
            'Unsupported operand 149',
        ),
        ('a line. And another\nand more', 'a line'),
        ('', "UnpicklingError('')"),
    ],
)
def test_what_pytorch_met_is_told_without_its_advice(text, reason, tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise pickle.UnpicklingError(text)

    torch.save(STATE, tmp_path / 'a.pth')
    monkeypatch.setattr(torch, 'load', load)
    with pytest.raises(UserError) as error:
        load_file(tmp_path / 'a.pth')
    assert str(error.value) == f"checkpoint '{tmp_path}/a.pth' cannot be read: {reason}"


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        load_file(tmp_path / 'nothing.pth')
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=STATE), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match='cannot be read'):
        load_file(path)


def test_other_addresses_are_refused():
    with pytest.raises(UserError, match='only files, http'):
        load_file('s3://bucket/model.pth')


@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_addresses(tmp_path, monkeypatch, kind):
    """Files behind http, here of this machine, are read as safely as local ones."""
    (tmp_path / 'served').mkdir()
    if kind == 'pth':
        torch.save(STATE, tmp_path / 'served' / 'model.pth')
        torch.save(dict(state_dict={}, args=Harmful()), tmp_path / 'served' / 'harmful.pth')
    else:
        save_file(STATE, tmp_path / 'served' / 'model.safetensors')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.delenv('MMDENSE_OFFLINE')
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / 'served'))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f'http://127.0.0.1:{server.server_port}'
        read = load_file(f'{address}/model.{kind}')
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[key], value) for key, value in STATE.items())
        with pytest.raises(
            UserError, match=f'none.{kind}. cannot be downloaded: the server answers 404'
        ):
            load_file(f'{address}/none.{kind}')
        if kind == 'pth':
            with pytest.raises(UserError, match='cannot be read'):
                load_file(f'{address}/harmful.pth')
    finally:
        server.shutdown()


def test_addresses_of_one_name_do_not_meet(tmp_path, monkeypatch):
    """A cached file belongs to its whole address, and is read without the server."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.delenv('MMDENSE_OFFLINE')
    addresses = []
    for i in range(2):
        torch.save(dict(x=torch.tensor(i)), tmp_path / 'x.pth')
        with serving((tmp_path / 'x.pth').read_bytes()) as server:
            addresses.append(f'{server.url}/{i}/model.pth')
            assert load_file(addresses[-1])['x'] == i
    assert [load_file(address)['x'] for address in addresses] == [0, 1]
    kept = {path.parent for path in (tmp_path / 'hub').rglob('*model.pth')}
    assert kept == {tmp_path / 'hub' / 'checkpoints'}  # where torch.hub has them


def test_damage_is_named(tmp_path):
    """Where checksums say so; a file without any is read, with a word about that."""
    path = tmp_path / 'a.pth'
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    data[data.index(STATE['a.bias'].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'is damaged; restore it from a copy'):
        load_file(path)
    assert load_file(path, lazily=True).keys() == STATE.keys()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert find_damage(path) is None and not has_checksums(path)
    assert load_file(path).keys() == STATE.keys()


def test_texts_of_configs_are_left_out(tmp_path):
    """Which mmengine would run: of a file's own, and of what a training remembers."""
    meta, told = dict(epoch=3, cfg='import os', config='import os'), dict(iter=5, cfg='import os')
    content = dict(state_dict=STATE, meta=meta, message_hub=dict(runtime_info=told, log_scalars={}))
    torch.save(content, tmp_path / 'a.pth')
    read = load_file(tmp_path / 'a.pth')
    assert read['meta'] == dict(epoch=3)
    assert read['message_hub'] == dict(runtime_info=dict(iter=5), log_scalars={})

"""A download ends in the whole right file, or in one line and a cache as it was."""

import hashlib
import multiprocessing
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from server import serving

from mmdense.errors import UserError
from mmdense.serialization import download
from mmdense.serialization.download import fetch

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, 'PAUSE', 0.0)
    monkeypatch.delenv('MMDENSE_OFFLINE')
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / 'cache' / 'model.pth'


def files(folder: Path) -> set[str]:
    """Names in a folder, without locks."""
    return {path.name for path in folder.iterdir() if not path.name.endswith('.lock')}


def test_whole_and_once(server, target):
    for _ in range(2):
        assert fetch(f'{server.url}/model.pth', target, DIGEST) == target
    assert target.read_bytes() == CONTENT and len(server.requests) == 1
    assert files(target.parent) == {'model.pth', 'model.pth.json'}


def test_redirected(server, target):
    fetch(f'{server.url}/moved/model.pth', target)
    assert target.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ['/moved/model.pth', '/model.pth']


def test_goes_on_where_it_was_cut_off(server, target):
    server.cut = [1000, 0, 50_000]
    fetch(f'{server.url}/model.pth', target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [
        None,
        'bytes=1000-',
        'bytes=1000-',
        'bytes=51000-',
    ]


def test_goes_on_at_the_next_call(server, target):
    server.cut = [70_000, 0, 0, 0]
    with pytest.raises(UserError, match='70000 of 102400 bytes came; the next try goes on'):
        fetch(f'{server.url}/model.pth', target)
    assert not target.exists()
    fetch(f'{server.url}/model.pth', target)
    assert target.read_bytes() == CONTENT and server.requests[-1][1] == 'bytes=70000-'
    assert files(target.parent) == {'model.pth', 'model.pth.json'}


@pytest.mark.parametrize('blind', [False, True])
def test_parts_of_two_versions_never_meet(server, target, monkeypatch, blind):
    """Nor where a new version begins and does not come to its end, nor behind a server that sends
    a rest of whatever it has."""
    server.cut = [70_000, 0, 0, 0]
    with pytest.raises(UserError):
        fetch(f'{server.url}/model.pth', target)
    server.tag, server.content, server.is_blind = '"two"', CONTENT[::-1], blind
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, 'disk_usage', lambda path: SimpleNamespace(free=5))
        with pytest.raises(UserError, match=r'bytes, and'):
            fetch(f'{server.url}/model.pth', target)
    fetch(f'{server.url}/model.pth', target)
    assert target.read_bytes() == server.content


@pytest.mark.parametrize('how', ['no ranges', 'no version', 'another version'])
def test_starts_anew_where_the_rest_cannot_be_had(server, target, how):
    server.cut = [70_000, 0, 0, 0]
    if how == 'no version':
        server.tag = None
    with pytest.raises(UserError):
        fetch(f'{server.url}/model.pth', target)
    if how == 'no ranges':
        server.takes_ranges = False
    if how == 'another version':
        server.tag, server.content = '"two"', CONTENT[::-1]
    fetch(f'{server.url}/model.pth', target)
    assert target.read_bytes() == server.content


def test_a_server_that_is_ill_for_a_while(server, target):
    server.statuses = [503, 429, 500]
    assert fetch(f'{server.url}/model.pth', target).read_bytes() == CONTENT


# What goes wrong, and what the line says.
BROKEN = {
    'cut off': (dict(cut=[5] * 9), '20 of 102400 bytes came'),
    'too short': (dict(headers={'Content-Length': '200000'}), 'bytes came; the next try'),
    'another file': (dict(content=b'else'), 'is not the published file: its SHA-256 is'),
    'not there': (dict(statuses=[404]), 'the server answers 404'),
    'forbidden': (dict(statuses=[403]), 'the server answers 403'),
    'ill': (dict(statuses=[500] * 9), 'the server answers 500'),
    'web page': (dict(headers={'Content-Type': 'text/html'}), 'is a web page'),
    'stalled': (dict(pause=3.0), 'timed out'),
    'odd length': (dict(headers={'Content-Length': '1x'}, content=b'x'), 'is not the published'),
    'huge': (dict(headers={'Content-Length': str(10**15)}), 'has 1000000000000000 bytes, and'),
}


@pytest.mark.parametrize('what', BROKEN)
def test_broken(server, target, monkeypatch, what):
    settings, message = BROKEN[what]
    for name, value in settings.items():
        setattr(server, name, value)
    if what == 'stalled':
        monkeypatch.setattr(download, 'TIMEOUT', 0.2)
        monkeypatch.setattr(download, 'ATTEMPTS', 1)
    with pytest.raises(UserError, match=message) as error:
        fetch(f'{server.url}/model.pth', target, DIGEST)
    assert len(str(error.value).splitlines()) == 1
    assert not target.exists() and not (target.parent / 'model.pth.json').exists()


@pytest.mark.parametrize(
    'url, message',
    [
        ('http://127.0.0.1:9/model.pth', 'refused'),
        ('http://[::1/model.pth', 'cannot be downloaded'),
        ('http://', 'cannot be downloaded'),
    ],
)
def test_no_server(target, monkeypatch, url, message):
    monkeypatch.delenv('MMDENSE_OFFLINE')
    monkeypatch.setattr(download, 'PAUSE', 0.0)
    with pytest.raises(UserError, match=message):
        fetch(url, target)
    assert not target.exists()


def test_https_that_leads_to_http_is_refused(server, monkeypatch, tmp_path):
    answer = SimpleNamespace(url='http://elsewhere/model.pth', close=lambda: None)
    monkeypatch.setattr(download, 'urlopen', lambda request, timeout: answer)
    with pytest.raises(UserError, match=r'leads to .* no https'):
        fetch('https://somewhere/model.pth', tmp_path / 'model.pth')


def test_a_file_put_there_by_hand_is_the_users(server, target):
    target.parent.mkdir()
    target.write_bytes(b'by hand')
    assert fetch(f'{server.url}/model.pth', target) == target
    assert files(target.parent) == {'model.pth'} and not server.requests
    with pytest.raises(UserError, match='is not the published file'):
        fetch(f'{server.url}/model.pth', target, DIGEST)


def test_redirects_without_end(server, target):
    with pytest.raises(UserError, match='the server answers 302'):
        fetch(f'{server.url}/moved/loop', target)


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / 'cache').write_text('a file')
    with pytest.raises(UserError, match='cannot be written'):
        fetch(f'{server.url}/model.pth', tmp_path / 'cache' / 'model.pth')


def test_a_full_disk(server, target, monkeypatch):
    """/dev/full takes no byte; the file that is written leads there."""
    target.parent.mkdir()
    target.with_name('.model.pth.part').symlink_to('/dev/full')
    monkeypatch.setattr(download.Path, 'unlink', lambda path, missing_ok=False: None)
    with pytest.raises(UserError, match='No space left on device'):
        fetch(f'{server.url}/model.pth', target)
    assert not target.exists()


@pytest.mark.parametrize('name', download.OFFLINE)
def test_offline(server, target, monkeypatch, name):
    monkeypatch.setenv(name, '1')
    with pytest.raises(UserError, match=f'is not in the cache .*{name} keeps it offline'):
        fetch(f'{server.url}/model.pth', target)
    assert not server.requests and not target.parent.exists()
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert fetch(f'{server.url}/model.pth', target) == target


def test_a_file_that_changes_is_refused(server, target):
    fetch(f'{server.url}/model.pth', target)
    target.write_bytes(CONTENT[:-1] + b'x')  # on the disk
    with pytest.raises(UserError, match='is not what it was at its first use'):
        fetch(f'{server.url}/model.pth', target)
    target.unlink()
    server.content = b'other'  # at the address
    with pytest.raises(UserError, match=f'and was {DIGEST}'):
        fetch(f'{server.url}/model.pth', target)
    assert files(target.parent) == {'model.pth.json'}
    server.content = CONTENT
    fetch(f'{server.url}/model.pth', target)
    (target.parent / 'model.pth.json').write_text('{')
    with pytest.raises(UserError, match='cannot be read; remove it'):
        fetch(f'{server.url}/model.pth', target)


def test_one_of_many_threads_downloads(server, target):
    server.pause = 0.2
    threads = [
        threading.Thread(target=fetch, args=(f'{server.url}/model.pth', target)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT and len(server.requests) == 1


def test_one_of_many_processes_downloads(server, target):
    server.pause = 0.2
    fork = multiprocessing.get_context('fork')
    args = (f'{server.url}/model.pth', target)
    processes = [fork.Process(target=fetch, args=args) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert target.read_bytes() == CONTENT and len(server.requests) == 1


def test_a_process_that_is_killed_leaves_a_start_to_go_on_from(server, target):
    server.pause = 60.0
    process = multiprocessing.get_context('fork').Process(
        target=fetch, args=(f'{server.url}/model.pth', target)
    )
    process.start()
    part = target.with_name('.model.pth.part')
    while not part.exists() or not part.stat().st_size:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, 9)
    process.join()
    assert not target.exists()
    server.pause = 0.0
    fetch(f'{server.url}/model.pth', target)
    assert target.read_bytes() == CONTENT and len(server.requests) == 2
    assert server.requests[-1][1].startswith('bytes=')

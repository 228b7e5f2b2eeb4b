"""Files from the web, kept below torch's hub folder: whole or not at all, and always the same.

What was downloaded is compared with its hash at each use; where none is published that of the first
download holds. A download that was cut off goes on where it stopped, if the server can do that. Of
several processes, one downloads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from mmengine.logging import print_log
from tqdm import tqdm

from ..errors import UserError
from ..files import replacing, sync

TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; each one doubles it
CHUNK = 1 << 20  # bytes
OFFLINE = ('MMDENSE_OFFLINE', 'HF_HUB_OFFLINE')


class BrokenOff(Exception):
    """A download that may go on at the next attempt."""


def fetch(url: str, path: Path | None = None, sha256: str | None = None) -> Path:
    """The file behind an address, downloaded unless it was before.

    Args:
        url: The address.
        path: Where it is kept; by default in a folder of all addresses, under a name that carries
            a hash of the whole address, so that files of one name from two places do not meet.
        sha256: The file's hash, where it is known.

    Raises:
        UserError: When it cannot be had, or is not the file that it should be or once was.
    """
    path = path or find_place(url)
    if not path.is_file():
        refuse_offline(url, path)
        with alone(path):
            if not path.is_file():
                download(url, path, sha256)
                return path
    check_record(path, sha256)
    return path


def find_place(url: str) -> Path:
    """Where the file of any address is kept."""
    name = re.sub(r'[^\w.-]', '_', Path(urlsplit(url).path).name)[-100:]
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{name}'


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f'.{path.name}.lock'))
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be written: {error.strerror or error}; TORCH_HOME moves the cache"
        ) from error
    try:
        yield
    finally:
        lock.release()


def refuse_offline(url: str, path: Path) -> None:
    """Raise :class:`UserError` where the environment says that nothing may be downloaded."""
    for name in OFFLINE:
        if os.environ.get(name, '').lower() in ('1', 'true', 'yes', 'on'):
            raise UserError(f"'{url}' is not in the cache ('{path}'), and {name} keeps it offline")


def download(url: str, path: Path, sha256: str | None) -> None:
    """Download a file to ``path``, which gets its name when it is whole and right."""
    print_log(f"downloading '{url}' to '{path}'", 'current')
    part = path.with_name(f'.{path.name}.part')
    try:
        for attempt in range(ATTEMPTS):
            try:
                receive(url, part)
                break
            except BrokenOff as error:
                if attempt == ATTEMPTS - 1:
                    raise UserError(
                        f"'{url}' cannot be downloaded: {error}; the next try goes on from there"
                    ) from error
                time.sleep(PAUSE * 2**attempt)
        digest = find_digest(part)
        wrong = compare(url, digest, sha256, path)
        if wrong:
            part.unlink()
            raise UserError(wrong)
        write_record(path, url, digest)
        sync(part)
        os.replace(part, path)
        with suppress(OSError):  # of a folder, not every file system can
            sync(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        begun = (part, get_validator_file(part))
        if not all(file.exists() for file in begun):  # nothing that could go on
            for file in begun:
                file.unlink(missing_ok=True)


def receive(url: str, part: Path) -> None:
    """Get a file, or what is missing of it, once.

    Raises:
        BrokenOff: When another attempt may go on.
        UserError: When none would help.
    """
    validator = get_validator_file(part)
    begun = part.stat().st_size if part.exists() and validator.exists() else 0
    range_headers = {'Range': f'bytes={begun}-', 'If-Range': validator.read_text()} if begun else {}
    with connect(url, range_headers, part) as answer:
        if answer.headers.get_content_type() == 'text/html':
            raise UserError(f"'{url}' is a web page, not a checkpoint file")
        if answer.status != 206:  # the server sends the file from its start
            begun = 0
            part.unlink(missing_ok=True)
            save_validator(validator, answer.headers)
        elif not is_rest(answer.headers, begun, validator):
            part.unlink()
            raise BrokenOff('the server sends another part than was asked for')
        length = answer.headers.get('Content-Length', '')
        total = begun + int(length) if length.isdecimal() else None
        free = shutil.disk_usage(part.parent).free
        if (total or 0) - begun > free:
            raise UserError(f"'{url}' has {total} bytes, and '{part.parent}' has {free} left")
        bar = tqdm(
            desc=part.name[1:-5],
            initial=begun,
            total=total,
            unit='B',
            unit_scale=True,
            disable=None,
        )
        with bar, part.open('ab' if begun else 'wb') as file:
            while chunk := read(answer):
                file.write(chunk)
                file.flush()  # what came stays, however the process ends
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise BrokenOff(f'{size} of {total} bytes came')


def connect(url: str, range_headers: dict[str, str], part: Path) -> HTTPResponse:
    """A server's answer; raises as :func:`receive`."""
    headers = {'User-Agent': 'mmdense', 'Accept-Encoding': 'identity', **range_headers}
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
        if url.startswith('https:') and not answer.url.startswith('https:'):
            answer.close()
            raise UserError(f"'{url}' cannot be downloaded: it leads to '{answer.url}', no https")
        return answer
    except HTTPError as error:
        said = f'the server answers {error.code} {error.reason}'
        if error.code == 416:  # what is there is no part of what the server has now
            part.unlink(missing_ok=True)
        if error.code in (408, 416, 429) or error.code >= 500:
            raise BrokenOff(said) from error
        raise UserError(f"'{url}' cannot be downloaded: {said.splitlines()[0]}") from error
    except UserError:
        raise
    except ValueError as error:  # no address
        raise UserError(f"'{url}' cannot be downloaded: {error}") from error
    except (OSError, HTTPException) as error:
        raise BrokenOff(str(getattr(error, 'reason', error)) or type(error).__name__) from error


def read(answer: HTTPResponse) -> bytes:
    """The next bytes, as soon as there are any; none at the end."""
    try:
        return answer.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise BrokenOff(str(error) or type(error).__name__) from error


def get_validator_file(part: Path) -> Path:
    """Where it stands by what the server tells its version of a file that is begun."""
    return part.with_name(f'{part.name}.version')


def find_version(headers: HTTPMessage) -> str | None:
    """By what a server tells versions of a file apart, if it can send a rest of one."""
    tag = headers.get('ETag', '')
    return tag if tag and not tag.startswith('W/') else headers.get('Last-Modified')


def is_rest(headers: HTTPMessage, begun: int, validator: Path) -> bool:
    """Whether an answer is what is missing of a file that is begun, in the same version."""
    place = headers.get('Content-Range', '')
    version = find_version(headers)
    same = version is None or (validator.exists() and version == validator.read_text())
    return place.startswith(f'bytes {begun}-') and begun > 0 and same


def save_validator(path: Path, headers: HTTPMessage) -> None:
    """Keep what a later request for the rest must name."""
    version = find_version(headers)
    if version:
        path.write_text(version)
    else:
        path.unlink(missing_ok=True)


def find_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def get_record_file(path: Path) -> Path:
    """Where the hash of a file of the cache stands, and stays when the file is gone."""
    return path.with_name(f'{path.name}.json')


def write_record(path: Path, url: str | None, digest: str) -> None:
    record = get_record_file(path)
    with replacing(record) as part:
        part.write_text(json.dumps(dict(url=url, sha256=digest), indent=1))


def compare(what: str | Path, digest: str, sha256: str | None, path: Path) -> str | None:
    """What to say of a file that has not its known hash, or not that of its first use."""
    if sha256 and digest != sha256:
        return f"'{what}' is not the published file: its SHA-256 is {digest}, not {sha256}"
    record = get_record_file(path)
    try:
        first = json.loads(record.read_text())['sha256']
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return f"'{record}' cannot be read; remove it"
    if first == digest:
        return None
    return (
        f"'{what}' is not what it was at its first use: its SHA-256 is {digest}, and was {first}; "
        f"remove '{path}' to download it again, or '{record}' if the change is meant"
    )


def check_record(path: Path, sha256: str | None = None) -> None:
    """Raise :class:`UserError` when a file of the cache is not the one that was downloaded.

    A file that the user put there is compared with its published hash, if there is one.
    """
    if sha256 or get_record_file(path).exists():
        wrong = compare(path, find_digest(path), sha256, path)
        if wrong:
            raise UserError(wrong)

"""Checkpoints from the web, kept below torch's hub folder."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from mmengine.logging import print_log

from ..errors import UserError
from ..files import replacing

TIMEOUT = 60  # seconds without a byte


def fetch(url: str) -> Path:
    """The file behind an address, downloaded unless it was before: whole or not at all.

    Its name carries a hash of the whole address: files of one name from two places do not meet.

    Raises:
        UserError: When it cannot be had.
    """
    name = re.sub(r'[^\w.-]', '_', Path(urlsplit(url).path).name)[-100:]
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{name}'
    if path.is_file():
        return path
    print_log(f"downloading '{url}' to '{path}'", 'current')
    with replacing(path) as part:
        try:
            request = Request(url, headers={'User-Agent': 'mmdense'})
            with urlopen(request, timeout=TIMEOUT) as answer, part.open('wb') as file:
                shutil.copyfileobj(answer, file)
                length = answer.headers.get('Content-Length')
        except (OSError, ValueError) as error:  # URLError is an OSError
            raise UserError(f"checkpoint '{url}' cannot be read: {error}") from error
        if length is not None and part.stat().st_size != int(length):
            raise UserError(
                f"checkpoint '{url}' cannot be read: {part.stat().st_size} of {length} bytes came; "
                'try again'
            )
    return path

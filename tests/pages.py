"""Pages of the package as a reader's browser takes them."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'google-chrome'))), None)
VOID = {'img', 'link', 'meta'}


class Reader(HTMLParser):
    """The parts of a page: every tag is closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ''
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ('src', 'href')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == 'h2':
            self.headings.append(data)


def read_page(path: Path) -> Reader:
    """A page, whole: balanced, without scripts, all of it in the one file."""
    content = path.read_text(encoding='utf-8')
    reader = Reader()
    reader.feed(content)
    assert not reader.open
    assert content.startswith('<!DOCTYPE html>')
    assert not re.search(r'https?:|url\(|@import', content)
    assert not {'script', 'iframe', 'object'} & set(reader.tags)
    assert all(address.startswith(('data:', '#')) for address in reader.addresses)
    return reader


def open_in_browser(path: Path, picture: Path, width: int = 1000, height: int = 1400) -> np.ndarray:
    """What a browser shows of a page, without a complaint; skips where there is no browser."""
    if BROWSER is None:
        pytest.skip('no chromium here')
    command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
    command += ['--enable-logging=stderr', '--virtual-time-budget=3000']
    command += [f'--user-data-dir={picture.parent / "browser"}']
    command += [f'--screenshot={picture}', f'--window-size={width},{height}', path.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
    assert 'CONSOLE' not in said, said
    return np.asarray(Image.open(picture).convert('RGB'))

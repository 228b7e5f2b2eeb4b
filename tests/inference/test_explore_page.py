"""The page to explore models, in a browser: open, drop a picture, click, see the map change.

``make test-hosts`` installs what this needs; a browser is the machine's own.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import DIGIT_CONFIGS, ROOT
from pages import BROWSER

from mmdense.serialization.checkpoint import load_file

SCOPES = ('mmseg', 'mmseg', 'mmdet')


@pytest.fixture
def address(gradio: None, untrained, place: Path) -> Iterator[str]:
    """The page of two segmentors and a detector, on a free port."""
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = str(taken.getsockname()[1])
    other = load_file(untrained('mmseg'))
    other['state_dict']['decode_head.conv_seg.weight'] *= -1  # other classes win
    torch.save(other, place / 'other.pth')
    files = [untrained('mmseg'), place / 'other.pth', untrained('mmdet')]
    models = [str(part) for pair in zip(map(DIGIT_CONFIGS.get, SCOPES), files) for part in pair]
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'explore.py'), *models]
    with subprocess.Popen(
        [*command, '--port', port, '--score-thr', '0'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, TMPDIR=str(place)),
    ) as process:
        for line in process.stdout:
            if 'Running on local URL' in line:
                break
        else:
            pytest.fail('the page does not start')
        yield f'http://127.0.0.1:{port}/'
        assert list(place.glob('mmdense-explore-*'))  # with what was dropped on the page
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert not list(place.glob('mmdense-explore-*'))


@pytest.mark.slow
def test_in_a_browser(address, place, tmp_path_factory):
    api = pytest.importorskip('playwright.sync_api', reason='Playwright is not installed')
    if BROWSER is None:
        pytest.skip('no chromium here')
    broken = tmp_path_factory.mktemp('broken') / 'broken.png'
    broken.write_bytes(b'\x89PNG\r\n\x1a\n')
    scene = str(next(place.rglob('images/val/*.png')).resolve())
    asked, complaints = set(), []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=1500, height=1700))
        page.on('request', lambda request: asked.add(re.sub(r'(//[^/]*/).*', r'\1', request.url)))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on('console', lambda m: complaints.append(m.text) if m.type == 'error' else None)
        page.goto(address)
        page.set_default_timeout(60_000)
        api.expect.set_options(timeout=60_000)

        page.set_input_files('#dropped input[type=file]', scene)
        views = [page.locator(f'#view{i} img') for i in range(len(SCOPES))]
        for view in views:
            view.wait_for()
        words = page.locator('#difference textarea')
        api.expect(words).to_have_value(re.compile(r'^[1-9]\S*% of the pixels have another label$'))

        def changes(act: Callable[[], object]) -> None:
            """What is shown of the first model."""
            before = views[0].get_attribute('src')
            act()
            api.expect(views[0]).not_to_have_attribute('src', before)

        def choose(what: str, option: str) -> None:
            page.click(f'#{what}0 input')
            page.get_by_role('option', name=option, exact=True).click()

        choose('kind', 'attention')
        api.expect(page.locator('#map0 input')).to_have_value('head 1')
        page.wait_for_timeout(500)  # for the map beside it
        box = page.locator('#shown img').bounding_box()
        point = (box['x'] + 0.4 * box['width'], box['y'] + 0.4 * box['height'])
        changes(lambda: page.mouse.click(*point))
        changes(lambda: choose('place', 'stage 2, block 1'))
        changes(lambda: choose('map', 'head 2'))
        slider = page.locator('#threshold input[type=range]')
        right = dict(x=slider.bounding_box()['width'] - 1, y=2)
        changes(lambda: slider.click(position=right))  # all is hidden but the largest value
        assert float(slider.input_value()) == 1
        assert views[0].get_attribute('src').startswith(address)

        page.click('#chosen input')  # a picture of the data set
        changes(lambda: page.get_by_role('option').nth(3).click())

        assert not complaints
        page.locator('#dropped button').first.click()  # takes the picture away
        page.set_input_files('#dropped input[type=file]', str(broken))
        page.get_by_text("'broken.png' is no picture").wait_for()
        browser.close()
    assert {host for host in asked if host.startswith('http')} == {address}

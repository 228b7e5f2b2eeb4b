"""A page is one whole HTML file, in which text stays text; a browser shows it."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from pages import open_in_browser, read_page
from PIL import Image

from mmdense.errors import UserError
from mmdense.reporting.page import (
    MAX_SIDE,
    Gallery,
    Page,
    Picture,
    Plot,
    Section,
    Table,
    embed,
    render,
    show,
    write_page,
)

EVIL = '<script>alert("1")</script>&\''
RED = np.full((30, 40, 3), (255, 0, 0), np.uint8)


def make_page() -> Page:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    table = Table([EVIL, 'IoU'], [[EVIL, 0.25], ['b', None]], caption=EVIL)
    pictures = [Picture(RED, EVIL), Picture(Image.new('L', (20, 20)))]
    return Page(
        title=EVIL,
        lead=EVIL,
        figures={EVIL: 0.5, 'pictures': 12345, 'name': EVIL},
        sections=[
            Section(EVIL, [EVIL, table, Plot(figure, EVIL)]),
            Section('Pictures', [Gallery(pictures, width=300)]),
        ],
    )


def test_text_stays_text(tmp_path):
    """Wherever it stands: nothing of it becomes a tag, and all of it can be read."""
    write_page(make_page(), tmp_path / 'page.html')
    reader = read_page(tmp_path / 'page.html')
    assert reader.text.count(EVIL) == 13
    assert '12,345' in reader.text and '0.25' in reader.text
    assert reader.tags.count('img') == 3 and reader.tags.count('table') == 1
    assert reader.addresses.count('#section-2') == 1


def test_an_empty_page(tmp_path):
    write_page(Page('Nothing'), tmp_path / 'page.html')
    assert 'Nothing' in read_page(tmp_path / 'page.html').text


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'page.html'
    path.write_text('old')
    with pytest.raises(AttributeError):
        write_page(Page('x', sections=[Section('y', [Gallery([Picture('no picture')])])]), path)
    assert [p.name for p in tmp_path.iterdir()] == ['page.html'] and path.read_text() == 'old'
    with pytest.raises(UserError, match='cannot be written'):
        write_page(Page('x'), path / 'page.html')


def decode(address: str) -> Image.Image:
    kind, content = address.split(',')
    assert kind == 'data:image/jpeg;base64'
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(
    'image, size',
    [
        (RED, (40, 30)),
        (Image.fromarray(RED), (40, 30)),
        (Image.new('RGBA', (8, 8), (255, 0, 0, 255)), (8, 8)),
        (np.broadcast_to(RED[:1, :1], (100, 4000, 3)), (MAX_SIDE, 26)),
    ],
    ids=['array', 'PIL', 'alpha', 'large'],
)
def test_pictures_are_bounded(image, size):
    picture = decode(embed(image))
    assert picture.size == size
    red, green, blue = picture.getpixel((0, 0))
    assert red > 240 and green < 20 and blue < 20
    assert isinstance(image, np.ndarray) or image.size == size  # it is not changed


def test_grey_pictures():
    assert decode(embed(np.full((5, 7), 128, np.uint8))).getpixel((3, 3)) == (128, 128, 128)


@pytest.mark.parametrize(
    'value, text',
    [
        (1234567, '1,234,567'),
        (np.int64(5), '5'),
        (0.123456, '0.1235'),
        (np.float32(97.6), '97.6'),
        (1.0, '1'),
        (None, '-'),
        (float('nan'), '-'),
        ('007', '007'),
        (True, 'True'),
    ],
)
def test_cells(value, text):
    assert show(value) == text


@pytest.mark.parametrize(
    'decimals, texts', [(None, ['12.35', '1', '-']), (1, ['12.3', '1.0', '-'])]
)
def test_decimals_of_a_table(decimals, texts):
    content = render(Page('x', sections=[Section('y', [make_table(decimals)])]))
    numbers = re.findall(r'<td class="number">(.*?)</td>', content)
    assert sorted(numbers) == sorted([*texts, '1,000', '2', '3'])
    assert re.findall(r'<td>(.*?)</td>', content) == ['7', 'b', 'c']  # text, as its column has some


def make_table(decimals: int | None) -> Table:
    rows = [('7', 12.3456, 1000), ('b', 1.0, 2), ('c', None, 3)]
    return Table(['class', 'value', 'pictures'], rows, decimals=decimals)


@pytest.mark.parametrize('width', [360, 1000])
def test_in_a_browser(tmp_path, width):
    """No complaint, the pictures are there, and nothing sticks out on the right of a phone."""
    write_page(make_page(), tmp_path / 'page.html')
    shown = open_in_browser(tmp_path / 'page.html', tmp_path / 'shown.png', width)
    assert shown.shape[1] >= width
    is_red = (shown[..., 0] > 240) & (shown[..., 1] < 20)
    assert is_red.sum() > 200 * 150
    assert not is_red[:, -8:].any()

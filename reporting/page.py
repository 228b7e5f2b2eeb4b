"""A page for readers: one HTML file with its figures, tables and pictures inside.

Nothing in it is fetched or run: the pictures are part of the file, and what data sets and configs
say, names of classes above all, stays text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from ..files import replacing

MAX_SIDE = 1024  # pixels of a picture; larger ones are scaled down
QUALITY = 85  # of JPEG
PLOT_DPI = 150
NOTHING = '-'  # for what there is no value of


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers stand on the right.

    Args:
        columns: Their names.
        rows: A cell for each column: text, a number, or None where there is none.
        caption: What it shows, in a sentence.
        decimals: Of the numbers that are not whole; by default as many as make four digits.
    """

    kind: ClassVar[str] = 'table'
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ''
    decimals: int | None = None


@dataclass(frozen=True)
class Plot:
    """A figure of matplotlib."""

    kind: ClassVar[str] = 'plot'
    figure: Figure
    caption: str = ''


@dataclass(frozen=True)
class Picture:
    """A picture, of PIL or (H, W, 3) RGB or (H, W) of 8 bits, and a line below it."""

    image: Image.Image | np.ndarray
    caption: str = ''


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as fit in a row.

    Args:
        pictures: In the order in which they are shown.
        width: Pixels that each of them wants at least.
    """

    kind: ClassVar[str] = 'gallery'
    pictures: Sequence[Picture]
    width: int = 240


@dataclass(frozen=True)
class Section:
    """A part of the page under a title of its own; a text among its parts is a paragraph."""

    title: str
    parts: Sequence[str | Table | Plot | Gallery]


@dataclass(frozen=True)
class Page:
    """All that is on the page.

    Args:
        title: Also the name of the browser's window.
        lead: A sentence or two below the title.
        figures: The few that matter most, by name, in a row above all else.
        sections: From the top.
    """

    title: str
    lead: str = ''
    figures: Mapping[str, object] = field(default_factory=dict)
    sections: Sequence[Section] = ()


def write_page(page: Page, path: str | Path) -> None:
    """Write a page as one HTML file, whole or not at all.

    Raises:
        UserError: When the file cannot be written.
    """
    with replacing(path) as part:
        part.write_text(render(page), encoding='utf-8')


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, embed=embed, embed_plot=embed_plot)
    environment.filters.update(numeric=find_numeric)
    environment.tests.update(text=lambda part: isinstance(part, str))
    return environment.get_template('page.html.jinja').render(page=page)


def find_numeric(table: Table) -> list[bool]:
    """Of each column, whether it has numbers alone, or none: they stand on the right."""
    kinds = int | float | np.number | None
    return [all(isinstance(row[i], kinds) for row in table.rows) for i in range(len(table.columns))]


def show(value: object, decimals: int | None = None) -> str:
    """A cell as text: whole numbers in thousands, others to so many decimals, none as a dash."""
    if value is None or value != value:
        return NOTHING
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f'{value:,}'
    if isinstance(value, float | np.floating):
        return f'{value:.4g}' if decimals is None else f'{value:.{decimals}f}'
    return str(value)


def embed(image: Image.Image | np.ndarray) -> str:
    """A picture as the address of its own content, as JPEG, no larger than ``MAX_SIDE``."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image = image.convert('RGB')  # a copy
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=QUALITY)
    return to_address('image/jpeg', buffer.getvalue())


def embed_plot(figure: Figure) -> str:
    """A figure as the address of its own content, as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=PLOT_DPI)
    return to_address('image/png', buffer.getvalue())


def to_address(kind: str, content: bytes) -> str:
    """A data URI."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'

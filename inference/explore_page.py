"""The page of tools/explore.py, by Gradio: it asks :mod:`mmdense.inference.explore` and draws.

Gradio is an extra; only that tool imports this file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import mmcv
import numpy as np

from ..errors import UserError, first_line
from .drawing import enlarge_picture
from .explore import Explored, check_pixels, compare, list_maps, paint
from .visualize import Point

MIDDLE: Point = (0.5, 0.5)
HEIGHT = 340  # pixels, of a picture on the page
HINT = 'Drop a picture or choose one, then click a point of it.'
CHOICES = ('kind', 'place', 'map')


def make_page(models: dict[str, Explored], pictures: list[str]) -> gr.Blocks:
    """The page.

    Args:
        models: By the name that stands over each.
        pictures: Files that can be chosen.
    """
    with gr.Blocks(title='mmdense explore', analytics_enabled=False) as page:
        path, point = gr.State(None), gr.State(MIDDLE)
        with gr.Row():
            shown = gr.Image(
                label=HINT, interactive=False, height=HEIGHT, buttons=[], elem_id='shown', scale=2
            )
            with gr.Column():
                dropped = gr.File(label='a picture of yours', height=120, elem_id='dropped')
                chosen = gr.Dropdown(
                    pictures,
                    value=None,
                    label='a picture of the test data',
                    visible=bool(pictures),
                    elem_id='chosen',
                )
                threshold = gr.Slider(
                    0,
                    1,
                    0,
                    step=0.01,
                    label='hide less than this share of the largest value',
                    elem_id='threshold',
                )
        inputs, outputs = [], []
        with gr.Row():
            for number, name in enumerate(models):
                with gr.Column(min_width=320):
                    gr.Markdown(f'### {name}')
                    made = make_model(number)
                    outputs += made
                    inputs += [made[i] for i in range(len(CHOICES))]
        if len(models) > 1:
            with gr.Row():
                label = 'where the first two differ'
                outputs.append(gr.Image(label=label, interactive=False, height=HEIGHT, buttons=[]))
                outputs.append(gr.Textbox(label=label, interactive=False, elem_id='difference'))

        refresh = dict(
            fn=make_refresh(list(models.values())),
            inputs=[path, point, threshold, *inputs],
            outputs=outputs,
            api_visibility='private',
            preprocess=False,  # choices made before a picture was there may be gone
        )
        for source, event in ((dropped, dropped.upload), (chosen, chosen.input)):
            event(open_picture, [source], [path, shown, point], api_visibility='private').success(
                **refresh
            )
        shown.select(point_at, [shown], [point], api_visibility='private').success(**refresh)
        for component in (threshold, *inputs):
            change = component.release if component is threshold else component.input
            change(**refresh)
    return page


def make_model(number: int) -> list[gr.components.Component]:
    """What the page has of a model: choices of a view, the view, the prediction, its time."""
    choices = [
        gr.Dropdown([], label=word, interactive=True, elem_id=f'{word}{number}') for word in CHOICES
    ]
    pictures = [
        gr.Image(
            label=word,
            interactive=False,
            height=HEIGHT,
            buttons=[],
            elem_id=f'{word}{number}',
        )
        for word in ('view', 'prediction')
    ]
    return [*choices, *pictures, gr.Textbox(label='time', interactive=False)]


def open_picture(path: str | None) -> tuple[str | None, np.ndarray | None, Point]:
    """A picture to look at, and the point to start from."""
    if path is None:
        return None, None, MIDDLE
    with told():
        check_pixels(path)
        picture = mmcv.imread(path)
        if picture is None:
            raise UserError(f"'{Path(path).name}' is no picture")
    return path, enlarge_picture(picture[..., ::-1])[0], MIDDLE


def point_at(shown: np.ndarray, event: gr.SelectData) -> Point:
    """Where somebody clicked, as fractions."""
    height, width = shown.shape[:2]
    return event.index[0] / max(width - 1, 1), event.index[1] / max(height - 1, 1)


def make_refresh(models: list[Explored]) -> Callable[..., list]:
    """What fills the page again, from the picture, the point, the threshold and the choices."""

    def refresh(path: str | None, point: Point, threshold: float, *choices: str | None) -> list:
        if path is None:
            raise gr.Error(HINT, print_exception=False)
        filled: list = []
        with told():
            for i, model in enumerate(models):
                wanted = choices[i * len(CHOICES) : (i + 1) * len(CHOICES)]
                filled += fill(model, path, tuple(point), threshold, *wanted)
            if len(models) > 1:
                first, second = (model.see(path) for model in models[:2])
                picture, words = compare(first, second, models[0].score_thr)
                filled += [enlarge_picture(picture)[0], words]
        return filled

    return refresh


def fill(
    model: Explored,
    path: str,
    point: Point,
    threshold: float,
    kind: str | None,
    place: str | None,
    name: str | None,
) -> list:
    """What :func:`make_model` made, filled; a choice that is not there becomes another."""
    seen, views = model.see(path), model.look(path, point)
    kind = kind if kind in views else next(iter(views))
    place = place if place in views[kind] else next(iter(views[kind]))
    view = views[kind][place]
    maps = list_maps(view)
    name = name if name in maps else maps[0]
    return [
        gr.Dropdown(list(views), value=kind),
        gr.Dropdown(list(views[kind]), value=place),
        gr.Dropdown(maps, value=name),
        enlarge_picture(paint(seen.picture, view, name, threshold))[0],
        seen.overlay,
        f'{1000 * seen.seconds:.0f} ms',
    ]


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong with a picture becomes one line on the page."""
    try:
        yield
    except Exception as error:  # of a shape, say, that a layer cannot take
        raise gr.Error(first_line(error), print_exception=False) from error

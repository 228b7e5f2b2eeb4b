"""The page about an evaluation: what is collected on the way, and what is shown of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from mmengine.config import Config
from mmengine.evaluator import BaseMetric

from ..engine.checks import check_work_dir
from ..engine.data import find_datasets
from ..engine.logs import load_runs
from ..engine.toolboxes import find_toolbox
from ..errors import UserError
from ..registry import METRICS
from .collector import Collector
from .curves import choose_keys, draw
from .page import Page, Plot, Section, Table, write_page

SUFFIXES = ('.html', '.htm')
TIMES = ('time', 'data_time')  # which the runner reports beside the metrics


def enable_report(cfg: Config) -> None:
    """Let the config's own metric collect what the page shows; its figures stay the same.

    Raises:
        UserError: When the config has no metric that a page is made from, or none is computed.
    """
    toolbox = find_toolbox(cfg)
    metrics = cfg.test_evaluator
    metrics = metrics if isinstance(metrics, list | tuple) else [metrics]
    metric = next((m for m in metrics if get_name(m) == toolbox.metric), None)
    if metric is None:
        raise UserError(
            f'--report needs {toolbox.metric} as test_evaluator, or among several; leave it out'
        )
    if metric.get('format_only'):
        raise UserError('--report needs annotations, and test_evaluator.format_only has none')
    metric.update(type=toolbox.collector, **METRICS.get(toolbox.collector).read_settings(cfg))


def get_name(metric: dict) -> str:
    """The class's name alone, whether the config has it, with a scope or not, or the class."""
    kind = metric.get('type')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def find_report_path(cfg: Config, file: str) -> Path:
    """Where the page goes: this file, or if it is empty, report.html in the work dir.

    Raises:
        UserError: When it is no HTML file or cannot be written.
    """
    path = Path(file or Path(cfg.work_dir, 'report.html'))
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise UserError(f"--report '{path}': name a file that ends in {', '.join(SUFFIXES)}")
    check_work_dir(str(path.parent), '--report')
    return path


def write_report(
    cfg: Config, collected: Sequence[BaseMetric], metrics: Mapping[str, float], path: Path
) -> None:
    """Write the page, in the main process.

    Args:
        cfg: Of :func:`enable_report`, with the checkpoint as ``load_from``.
        collected: The evaluator's metrics; one of them has collected what the page shows.
        metrics: What the evaluation ended with.
        path: The HTML file.

    Raises:
        UserError: When the file cannot be written, or a picture not be read any more.
    """
    metrics = {name: value for name, value in metrics.items() if name not in TIMES}
    found = next(metric for metric in collected if isinstance(metric, Collector))
    with matplotlib.rc_context({'text.parse_math': False}):  # a class may be called $1
        page = Page(
            title=f'Evaluation of {Path(cfg.filename).stem}',
            lead=f'{cfg.load_from} on {describe_data(cfg)}.',
            figures=found.get_figures(metrics),
            sections=[
                Section('Metrics', [Table(['metric', 'value'], list(metrics.items()))]),
                *found.get_sections(cfg),
                *get_training(cfg.load_from),
            ],
        )
        write_page(page, path)


def describe_data(cfg: Config) -> str:
    """The test data in a few words: their type, and where they are."""
    dataset = next(find_datasets(cfg.test_dataloader.dataset))
    kind = dataset.type if isinstance(dataset.type, str) else dataset.type.__name__
    place = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    how = ', with test-time augmentation' if 'module' in cfg.model else ''
    how = f', in tiles of {cfg.model.side} pixels' if 'side' in cfg.model else how
    return f'{kind} {place}'.rstrip() + how


def get_training(checkpoint: str) -> list[Section]:
    """The curves of the training that wrote a checkpoint, when its log lies beside it."""
    try:
        runs = load_runs([str(Path(checkpoint).parent)])
        figure = draw(runs, choose_keys(runs, None), width=1)
    except UserError:
        return []
    return [Section('Training', [Plot(figure, f'What {runs[0].name} logged.')])]

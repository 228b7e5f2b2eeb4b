"""Which small networks the study trains.

``configs/study/tables.yml`` says what is compared with what. A run is one training of that: a
config, a backbone, options of the network, a start, a seed. Runs that several tables have are
trained once.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.fileio import load

from ..data.digit_scenes import MARKER
from ..engine.toolboxes import find_toolbox
from ..files import config_root
from .steps import Step

FOLDER = Path('configs/study')
DATA = Path('data/digit_scenes', MARKER)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """One training, but for its seed.

    Args:
        config: A file of configs/study, without its suffix.
        backbone: A file of its ``_base_``.
        options: Of the network, in place of that file's.
        pretrained: Start from the classifier of the same network, options and seed.
    """

    config: str
    backbone: str
    options: tuple[tuple[str, object], ...] = ()
    pretrained: bool = False

    @property
    def name(self) -> str:
        """Names the run in the results and its folder."""
        words = [f'{key}={json.dumps(value).replace(" ", "")}' for key, value in self.options]
        start = ['pretrained'] if self.pretrained else []
        return '/'.join([self.config, ' '.join([self.backbone, *words, *start])])

    @property
    def classifier(self) -> Run | None:
        """What it starts from."""
        return replace(self, config='classifier', pretrained=False) if self.pretrained else None

    def make_step(self, seed: int, work_dir: Path, follows_code: bool) -> Step:
        """Its training with a seed. Paths are those of a checkout, from its root.

        Args:
            seed: Of weights, order and augmentations.
            work_dir: The folder that its own lies in.
            follows_code: Whether to train again when this package's code has changed.
        """
        options = {f'model.backbone.{key}': value for key, value in self.options}
        needs = None
        if self.classifier:
            needs = self.classifier.make_step(seed, work_dir, follows_code)
            checkpoint = needs.folder / f'epoch_{get_facts(self.classifier.config).epochs}.pth'
            init = dict(type='Pretrained', prefix='backbone.', checkpoint=str(checkpoint))
            options.update({f'model.backbone.init_cfg.{k}': v for k, v in init.items()})
        options['randomness.seed'] = seed
        return Step(
            title=f'{self.name}, seed {seed}',
            config=FOLDER / f'{self.config}.py',
            folder=work_dir / re.sub(r'[^\w/]+', '-', self.name).strip('-') / f'seed_{seed}',
            metrics=get_facts(self.config).metrics,
            data=(DATA,),
            needs=needs,
            options=('--cfg-options', *(f'{key}={write(v)}' for key, v in options.items())),
            variables={'BACKBONE': self.backbone},
            follows_code=follows_code,
        )


class Facts(NamedTuple):
    """Of a config: its metrics, title -> key in mmengine's log, and its epochs."""

    metrics: dict[str, str]
    epochs: int


@functools.cache
def get_facts(config: str) -> Facts:
    """Those of a file of configs/study, named without its suffix."""
    cfg = Config.fromfile(config_root() / 'study' / f'{config}.py')
    metrics = {title: key for key, title in find_toolbox(cfg).keys.items()}
    return Facts(metrics, cfg.train_cfg.max_epochs)


def write(value: object) -> str:
    """A value as ``--cfg-options`` read it."""
    return str(list(value) if isinstance(value, tuple) else value).replace(' ', '')


@dataclass(frozen=True)
class Table:
    """What is compared.

    Args:
        title: Its heading.
        text: What is asked.
        rows: A name -> its runs, one for each config; without any, it is text alone.
        regress: Whether the first seed of these runs tells that the code still trains as well.
        plotted: Whether its rows are points of the plots.
        shows: What came of it, in words.
    """

    title: str
    text: str
    rows: dict[str, list[Run]]
    regress: bool = False
    plotted: bool = False
    shows: str = ''


def read_tables() -> list[Table]:
    """Those of configs/study/tables.yml."""
    return [
        Table(
            title=entry['title'],
            text=entry['text'].strip(),
            rows={name: list(read_row(entry, row)) for name, row in entry.get('rows', {}).items()},
            regress=entry.get('regress', False),
            plotted=entry.get('plotted', False),
            shows=entry.get('shows', '').strip(),
        )
        for entry in load(config_root() / 'study' / 'tables.yml')
    ]


def read_row(entry: Mapping, row: Mapping) -> Iterator[Run]:
    """The runs of a row of a table."""
    options = tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in row.get('options', {}).items()
    )
    for config in [row['config']] if 'config' in row else entry['configs']:
        pretrained = entry.get('pretrained', False) and config != 'classifier'
        yield Run(config, row.get('backbone') or entry['backbone'], options, pretrained)


def list_runs(tables: Iterable[Table]) -> list[Run]:
    """The runs of tables, each once, and behind the classifier that it starts from."""
    runs = {run: None for table in tables for row in table.rows.values() for run in row}
    first = {run.classifier: None for run in runs if run.classifier}
    return list(first | runs)

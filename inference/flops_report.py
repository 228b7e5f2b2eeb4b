"""What a model costs, for readers: one JSON object, or a table."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from mmengine.fileio import load
from rich.console import Console
from rich.table import Table

from ..engine.toolboxes import NUM_MASKS, NUM_PROPOSALS
from .flops import Complexity
from .model_zoo import get_shape, metafiles

COUNTER = 'torch.utils.flop_counter (convolutions, linear layers, matrix products)'


def as_json(found: Complexity, config: str, by_module: bool, original: bool) -> str:
    """One object: ``params``, ``macs``, ``activations``, ``shape``, modules, the counter."""
    modules = found.modules if by_module else found.parts
    content = dict(
        config=config,
        params=found.params,
        macs=found.macs,
        activations=found.activations,
        shape=found.shape,
        modules={name: count._asdict() for name, count in modules.items()},
        counter=COUNTER,
        torch=torch.__version__,
    )
    if original:
        content['original'] = found.original._asdict()
    return json.dumps(content)


def print_table(found: Complexity, detector: bool, by_module: bool, original: bool) -> None:
    """The counts of every part, or module, and how they were counted."""
    table = Table('', 'parameters', 'MACs', box=None)
    modules = found.modules if by_module else found.parts
    for name, count in modules.items():
        table.add_row(name, f'{count.params / 1e6:.3f} M', f'{count.macs / 1e9:.3f} G')
    table.add_row('all', f'{found.params / 1e6:.3f} M', f'{found.macs / 1e9:.3f} G')
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    height, width = found.shape
    regions = f', {NUM_PROPOSALS} regions and {NUM_MASKS} masks' if detector else ''
    console.print(f'activations: {found.activations / 1e6:.1f} M')
    console.print(f'one image of {height} x {width}{regions}; {COUNTER}; torch {torch.__version__}')
    if original:
        params, flops = found.original
        console.print(f"as the backbone's authors count: {params:.2f} M, {flops:.2f} G")


def print_configs(as_json: bool) -> None:
    """Every config of this package, as it was counted for its metafile (``make zoo``)."""
    rows = [
        dict(
            config=str(Path(model['Config']).relative_to('configs').with_suffix('')),
            shape=get_shape(model),
            params=model['Metadata']['Parameters'],
            macs=model['Metadata']['FLOPs'],
        )
        for path in metafiles()
        for model in load(path)['Models']
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table('config', 'image', 'parameters', 'MACs', box=None)
    for row in rows:
        height, width = row['shape']
        size = f'{height} x {width}'
        params, macs = f'{row["params"] / 1e6:.3f} M', f'{row["macs"] / 1e9:.3f} G'
        table.add_row(row['config'], size, params, macs)
    Console(width=100).print(table)

"""What a model costs, for readers: one JSON object, or a table."""

from __future__ import annotations

import json

import torch
from rich.console import Console
from rich.table import Table

from ..engine.toolboxes import NUM_MASKS, NUM_PROPOSALS
from .flops import Complexity

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

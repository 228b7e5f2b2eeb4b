"""What a folder holds and what is wrong with it, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .examining import Examination
from .folder import CLASSES, SEMANTIC
from .kinds import KINDS
from .models import Input
from .summary import (
    Rows,
    compare_with_strides,
    conclude,
    count_each_class,
    count_kinds,
    count_splits,
    describe,
    measure_classes,
)

WIDTH = 120
NAMED = 3  # faults of each kind; pages have all
MOST = 30  # rows of a table


def show(examination: Examination, seen: Input | None) -> None:
    """Print tables and faults.

    Args:
        examination: What was found.
        seen: What the chosen model sees, where objects are to be compared with it.
    """
    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    console.print(escape(describe(examination)), soft_wrap=True)
    for note in examination.folder.notes:
        console.print(escape(note), soft_wrap=True)
    tables = [count_splits(examination), count_each_class(examination)]
    if seen and examination.folder.task not in (SEMANTIC, CLASSES):
        rows, word = compare_with_strides(examination, seen)
        tables += [measure_classes(examination), rows]
    else:
        word = None
    for rows in tables:
        console.print(escape(f'\n{rows.caption}'))
        console.print(as_table(rows))
    if word:
        console.print(word, soft_wrap=True)
    console.print()
    show_faults(examination, console)
    console.print(conclude(examination))


def as_table(rows: Rows) -> Table:
    table = Table(box=None)
    for i, column in enumerate(rows.columns):
        table.add_column(escape(column), justify='right' if i else 'left')
    for row in rows.rows[:MOST]:
        table.add_row(*(escape(f'{c:.1%}' if isinstance(c, float) else str(c)) for c in row))
    if len(rows.rows) > MOST:
        table.add_row(f'and {len(rows.rows) - MOST} more')
    return table


def show_faults(examination: Examination, console: Console) -> None:
    """A paragraph for each kind, with the first of them."""
    for kind, number in count_kinds(examination.faults):
        row = KINDS[kind]
        name = 'fault' if row.stops else 'warning'
        line = f'{name}: {kind}: {number} {row.title}; {row.remedy}'
        console.print(escape(line), soft_wrap=True)
        found = [fault for fault in examination.faults if fault.kind == kind]
        for fault in found[:NAMED]:
            console.print(escape(f'    {fault.where}: {fault.text}'), soft_wrap=True)
        if number > NAMED:
            console.print(f'    and {number - NAMED} more')

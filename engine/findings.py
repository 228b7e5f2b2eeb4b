"""What checks of a data set say: how many of what, and the first of them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NAMED = 3  # of everything that is counted, so many are named


@dataclass
class Report:
    """What is wrong with one data set."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pictures: int = 0
    folders: list[str] | None = None  # of classes


def spread(items: Sequence, number: int) -> list:
    """At most so many items, evenly spread."""
    return (
        [items[i * len(items) // number] for i in range(number)]
        if len(items) > number
        else [*items]
    )


def count(lines: list[str], found: Sequence, problem: str) -> None:
    """Add a line when anything was found: how many, what, and the first of them."""
    if len(found):
        lines.append(f'{len(found)} {problem}: {enumerate_first(found)}')


def enumerate_first(found: Sequence) -> str:
    return ', '.join(map(str, found[:NAMED])) + (', ...' if len(found) > NAMED else '')


def names_of(paths: Iterable[str]) -> list[str]:
    return [os.path.basename(path) for path in paths]


def compare(wanted: Sequence[str], there: Sequence[str]) -> str:
    """What one list has and the other has not, with what may have been meant."""
    missing = [name for name in wanted if name not in {*there}]
    extra = [name for name in there if name not in {*wanted}]
    parts = []
    if missing:
        parts.append(f'{len(missing)} of {len(wanted)} are not there: {enumerate_first(missing)}')
    if extra:
        parts.append(f'{len(extra)} are there beside: {enumerate_first(extra)}')
    for name in missing[:NAMED]:
        close = difflib.get_close_matches(name, extra, n=1)
        if close:
            parts.append(f"is '{name}' meant for '{close[0]}'?")
    return ', '.join(parts)

"""Values as the code of a config: dict(...) calls, one line each where they fit."""

from __future__ import annotations

import textwrap

WIDTH = 100
INDENT = '    '
OPENING = '{{'  # of what mmengine puts something else for, before it reads a config


class Name(str):
    """A variable, which stands without quotes."""

    def __repr__(self) -> str:
        return str(self)


def write_code(value: object, room: int, depth: int = 0) -> str:
    """A value as Python.

    Args:
        value: Of dicts, lists, tuples, numbers, texts and names.
        room: Columns that its first line may take.
        depth: How deep it stands.
    """
    parts, opening, closing = take_apart(value)
    if parts is None:
        return escape(repr(value))
    one_line = ', '.join(prefix + write_code(part, 10**9) for prefix, part in parts)
    one_line += ',' if isinstance(value, tuple) and len(value) == 1 else ''
    if len(opening) + len(one_line) + len(closing) <= room and '\n' not in one_line:
        return f'{opening}{one_line}{closing}'
    margin = INDENT * (depth + 1)
    lines = [
        f'{margin}{prefix}{write_code(part, WIDTH - len(margin + prefix) - 1, depth + 1)},'
        for prefix, part in parts
    ]
    return '\n'.join([opening, *lines, INDENT * depth + closing])


def take_apart(value: object) -> tuple[list[tuple[str, object]] | None, str, str]:
    """What a dict, list or tuple holds, and its brackets."""
    if isinstance(value, dict) and all(isinstance(k, str) and k.isidentifier() for k in value):
        return [(f'{key}=', child) for key, child in value.items()], 'dict(', ')'
    if isinstance(value, dict):
        return [(f'{escape(repr(key))}: ', child) for key, child in value.items()], '{', '}'
    if isinstance(value, list):
        return [('', child) for child in value], '[', ']'
    if isinstance(value, tuple):
        return [('', child) for child in value], '(', ')'
    return None, '', ''


def escape(code: str) -> str:
    """Code in which no text opens what mmengine replaces; its value is the same."""
    return code.replace(OPENING, '{\\x7b')


def write_comment(text: str) -> str:
    """A text behind number signs, on as many lines as it takes."""
    while OPENING in text:
        text = text.replace(OPENING, '{ {')
    return textwrap.fill(text, WIDTH, initial_indent='# ', subsequent_indent='# ')


def write_docstring(title: str, command: str) -> str:
    """A module's: what it is, and the command that runs it."""
    title, command = (text.replace('\\', '\\\\').replace('"', '\\"') for text in (title, command))
    return escape(f'"""{title}\n\n    {command}\n"""')


def write_assignment(name: str, value: object) -> str:
    """``name = value``, laid out."""
    return f'{name} = {write_code(value, WIDTH - len(name) - 3)}'

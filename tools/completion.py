"""Print what lets a shell complete the command: tools, flags, choices, configs and files.

python tools/completion.py bash > ~/.local/share/bash-completion/completions/mmdense
python tools/completion.py zsh > ~/.zfunc/_mmdense
"""

from __future__ import annotations

import argparse
import runpy

import shtab
from mmdense_cli import SHORT, find_tools

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import list_configs

SHELLS = ('bash', 'zsh')
CONFIGS = ('config', 'configs', 'model')  # arguments that a config's name may stand for
CONFIG_OR_FILE = dict(bash='_mmdense_configs', zsh='{_mmdense_configs; _files}')
FUNCTIONS = dict(
    bash="""_mmdense_configs() {
  compgen -W '%s' -- "$1"
  compgen -f -- "$1"
}""",
    zsh="""_mmdense_configs() {
  compadd %s
}""",
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Print what lets a shell complete the command')
    parser.add_argument('shell', choices=SHELLS)
    return parser


def make_command() -> argparse.ArgumentParser:
    """One parser that has the parser of every tool below it."""
    command = argparse.ArgumentParser(prog='mmdense')
    below = command.add_subparsers()
    for name, path in find_tools().items():
        if name in SHORT.values():
            continue
        parser = runpy.run_path(str(path))['make_parser']()
        for action in parser._actions:
            if action.nargs != 0 and action.choices is None and action.type is None:
                action.complete = CONFIG_OR_FILE if action.dest in CONFIGS else shtab.FILE
        below.add_parser(name, help=parser.description, parents=[parser], add_help=False)
    return command


def main() -> None:
    shell = make_parser().parse_args().shell
    preamble = FUNCTIONS[shell] % ' '.join(list_configs())
    print(shtab.complete(make_command(), shell, preamble={shell: preamble}))


if __name__ == '__main__':
    launch.run(main)

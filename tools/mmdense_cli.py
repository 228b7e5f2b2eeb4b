"""The tools as one command: ``mmdense train CONFIG`` is ``python tools/train.py CONFIG``.

Imports nothing of the package, so that help is quick, and ``mmdense doctor`` starts where the
package does not.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

# The command's name of a tool where it is shorter than the file's, or the reader's word for it.
SHORT = {
    'convert': 'convert_checkpoint',
    'flops': 'get_flops',
    'plot': 'plot_log',
    'publish': 'publish_model',
}
# Of a checkout: what makes its demo and pages, and what the shell scripts call.
INTERNAL = ('demo', 'dist_launch', 'mmdense_cli', 'model_zoo', 'study')


def find_tools() -> dict[str, Path]:
    """The tools by the names that the command takes, short ones first."""
    package = importlib.util.find_spec('mmdense')  # without importing it
    folder = Path(package.submodule_search_locations[0]) / 'tools'
    files = {path.stem: path for path in sorted(folder.glob('[!_]*.py'))}
    short = {name: files[tool] for name, tool in SHORT.items()}
    own = {n: path for n, path in files.items() if n not in (*SHORT.values(), *INTERNAL)}
    return dict(sorted((short | own).items())) | {tool: files[tool] for tool in SHORT.values()}


def describe(tools: dict[str, Path]) -> str:
    """What ``mmdense --help`` prints."""
    lines = ['usage: mmdense TOOL ...', '', 'mmdense TOOL --help tells more of one:', '']
    for name, path in tools.items():
        if name not in SHORT.values():
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ''
            lines.append(f'  {name:<14}{docstring.splitlines()[0]}')
    return '\n'.join(lines)


def main() -> None:
    """Run the tool that the first argument names, as if its file had been run."""
    tools = find_tools()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(describe(tools))
        return
    if name not in tools:
        sys.exit(f"error: mmdense has no tool '{name}'; it has {', '.join(tools)}")
    path = tools[name]
    sys.argv = [f'mmdense {name}', *sys.argv[2:]]
    program = compile(path.read_text(), str(path), 'exec')
    exec(program, {'__name__': '__main__', '__file__': str(path)})


if __name__ == '__main__':
    main()

"""Plant small faults in files of the package and count how many the tests of their room see.

python tests/mutants.py engine/checks.py serialization/matching.py    # or: make mutants FILES=...
python tests/mutants.py                                               # the files changed since HEAD

mutmut plants and runs them, in a copy of the package below ``build/``. Of each file a random sample
is tried, against the tests of the room that the file is in and of the tools that call it. What
survives is printed as a diff; faults that change nothing are listed, with the reason, in
``tests/mutants_equivalent.txt``, and survivors that change the wording of a message alone are
counted with them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / 'build' / 'mutants'
EQUIVALENT = ROOT / 'tests' / 'mutants_equivalent.txt'
# mutmut's exit codes: the tests fail, or run without end; they pass, or none reaches the fault.
SEEN, ALIVE = {1, 3, -24, 24, 36, 152, 255}, {0, 5, 33}
ROOMS = ('backbones', 'data', 'engine', 'families', 'heads', 'inference', 'serialization')
CALLED_BY_TOOLS = ('engine', 'inference', 'serialization')
SETTINGS = """\
[mutmut]
source_paths=mmdense
only_mutate={files}
pytest_add_cli_args_test_selection={tests}
pytest_add_cli_args=-p
    no:cacheprovider
    -p
    no:xdist
    -o
    addopts=
    -m
    not slow
also_copy=mmdense
process_isolation=forkserver
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count the planted faults that the tests see')
    parser.add_argument('files', nargs='*', help='modules of rooms; default: those changed')
    parser.add_argument('--number', type=int, default=40, help='faults per file (default: 40)')
    parser.add_argument('--minutes', type=float, default=20, help='time for all (default: 20)')
    parser.add_argument('--seed', type=int, default=0, help='draws the sample (default: 0)')
    return parser.parse_args()


def find_changed() -> list[str]:
    """Modules of rooms that differ from the last commit."""
    command = ['git', 'diff', '--name-only', 'HEAD']
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [name for name in changed if name.endswith('.py') and Path(name).parts[0] in ROOMS]


def find_tests(file: str) -> list[str]:
    """The tests of the room that a module is in, or those named after a module of the root."""
    room = Path(file).parts[0]
    if room in ROOMS:
        return [f'tests/{room}', *(['tests/tools'] if room in CALLED_BY_TOOLS else [])]
    found = (ROOT / 'tests').glob(f'test_{Path(file).stem}*.py')
    return [str(path.relative_to(ROOT)) for path in found]


def copy_package(files: list[str]) -> None:
    """The package below ``build/mutants``, under its own name, with mutmut's settings beside it."""
    shutil.rmtree(COPY, ignore_errors=True)
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout
    for name in tracked.split():
        target = COPY / 'mmdense' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    tests = sorted({test for name in files for test in find_tests(name)})
    settings = SETTINGS.format(
        files='\n    '.join(f'mmdense/{name}' for name in files),
        tests='\n    '.join(f'mmdense/{test}' for test in tests),
    )
    (COPY / 'setup.cfg').write_text(settings)


def run_mutmut(*args: str, seconds: float | None = None) -> str:
    """Run mutmut in the copy, one thread for each of two processes; it stops when time is up."""
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(COPY / 'mutants'))
    command = [str(Path(sys.executable).parent / 'mutmut'), *args]
    process = subprocess.Popen(
        command, cwd=COPY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.communicate()[0]


def add_own_tests(files: list[str]) -> None:
    """Let a module's own tests count for all of it.

    mutmut sees what they reach in its own process, and not what they reach in those they start.
    """
    path = COPY / 'mutants' / 'mutmut-stats.json'
    stats = json.loads(path.read_text())
    reached = stats['tests_by_mangled_function_name']
    for file in files:
        start = f'mmdense/tests/{Path(file).parent}/test_{Path(file).stem}'
        own = [
            test
            for test in stats['duration_by_test']
            if test.startswith((f'{start}.', f'{start}_'))
        ]
        for function in {name.rpartition('__mutmut_')[0] for name in read_results(file)}:
            reached[function] = sorted({*reached.get(function, ()), *own})
    path.write_text(json.dumps(stats))


def read_results(file: str) -> dict[str, int | None]:
    """Exit code of the tests for each fault; None where it was not tried."""
    meta = COPY / 'mutants' / 'mmdense' / f'{file}.meta'
    return json.loads(meta.read_text())['exit_code_by_key']


def describe(name: str) -> str:
    """The changed lines of a fault: ``- old`` and ``+ new``."""
    lines = run_mutmut('show', name).splitlines()
    changed = [line for line in lines if line[:1] in '+-' and line[:3] not in ('+++', '---')]
    return '\n'.join(line[0] + ' ' + line[1:].strip() for line in changed)


def is_wording(change: str) -> bool:
    """Whether a fault changes letters of a text of several words, and nothing else."""
    old, new = ('\n'.join(re.findall(rf'^\{sign} (.*)', change, re.M)) for sign in '-+')
    same = old.casefold() == new.replace('XX', '').casefold()
    return same and any(' ' in text for _, text in re.findall(r"""(['"])(.*?)\1""", new))


def main() -> None:
    args = parse_args()
    files = args.files or find_changed()
    if not files:
        sys.exit('no module of a room has changed; name files')
    missing = [name for name in files if not (ROOT / name).is_file()]
    if missing:
        sys.exit(f'error: no such file: {", ".join(missing)}')
    copy_package(files)
    out = run_mutmut('run', 'none')  # plants all, finds which tests reach which
    if not all((COPY / 'mutants' / 'mmdense' / f'{name}.meta').is_file() for name in files):
        sys.exit(f'error: mutmut failed:\n{out[-2000:]}')
    if not (COPY / 'mutants' / 'mutmut-stats.json').is_file():
        sys.exit(f'error: the tests do not pass in the copy, or reach nothing:\n{out[-2000:]}')
    add_own_tests(files)
    draw = random.Random(args.seed)
    chosen = {}
    for file in files:
        names = sorted(read_results(file))
        chosen[file] = draw.sample(names, min(args.number, len(names)))
    names = [name for sample in chosen.values() for name in sample]
    run_mutmut('run', '--max-children', '2', *names, seconds=60 * args.minutes)

    equivalent = EQUIVALENT.read_text()
    killed = tried = 0
    for file, sample in chosen.items():
        codes = {name: code for name, code in read_results(file).items() if name in sample}
        codes = {name: code for name, code in codes.items() if code in SEEN | ALIVE}
        alive = {name: describe(name) for name, code in codes.items() if code in ALIVE}
        real = {
            name: change
            for name, change in alive.items()
            if not change or not (change in equivalent or is_wording(change))
        }
        total = len(codes) - len(alive) + len(real)
        killed, tried = killed + total - len(real), tried + total
        print(f'{file}: {total - len(real)} of {total} seen, {len(alive) - len(real)} equivalent')
        for name, change in real.items():
            print(f'  {name}\n    ' + change.replace('\n', '\n    '))
    print(f'score {killed / max(tried, 1):.1%}: {killed} of {tried}')


if __name__ == '__main__':
    main()

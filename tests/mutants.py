"""Plant small faults in files of the package and count how many the tests of their room see.

python tests/mutants.py engine/checks.py serialization/matching.py    # or: make mutants FILES=...
python tests/mutants.py                                               # the files changed since HEAD
python tests/mutants.py heads engine --total 200                      # shared out among the modules
python tests/mutants.py --again --seconds 300                         # what survived, tests as now

mutmut plants and runs them, in a copy of the package below ``build/``. Of each file a random sample
is tried, against the tests of the room that the file is in and of the tools that call it: those
that reach the fault, quickest first, until one fails. What survives is printed as a diff; faults
that change nothing are listed, with the reason, in ``tests/mutants_equivalent.txt``, and survivors
that change the wording of a message alone are counted with them. ``build/mutants/tried.tsv`` grows
a line for each fault whose tests came to an end: name, exit code, seconds, the test that saw it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / 'build' / 'mutants'
EQUIVALENT = ROOT / 'tests' / 'mutants_equivalent.txt'
# mutmut's exit codes: the tests fail, or run without end; they pass, or none reaches the fault.
SEEN, ALIVE = {1, 3, -24, 24, 36, 152, 255}, {0, 5, 33}
INSIDE = 'mutmut'  # the first argument of this script where it is mutmut
ROOMS = sorted({path.parent.name for path in ROOT.glob('*/__init__.py')} - {'tools'})
CALLED_BY_TOOLS = ('engine', 'inference', 'intake', 'reporting', 'serialization')
# A fault may take this much longer than its tests do without it: a minute, and half as long again.
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
use_git_change_detection=false
track_dependencies=false
timeout_constant=60
timeout_multiplier=1.5
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count the planted faults that the tests see')
    parser.add_argument('files', nargs='*', help='modules or rooms; default: modules changed')
    parser.add_argument('--number', type=int, default=40, help='faults per file (default: 40)')
    parser.add_argument('--total', type=int, help='faults of all files, by their size; at least 5')
    parser.add_argument(
        '--seconds', type=float, default=60, help='of tests for a fault (default 60)'
    )
    parser.add_argument('--children', type=int, default=2, help='processes (default: 2)')
    parser.add_argument('--again', action='store_true', help='try what survived the last run')
    parser.add_argument('--minutes', type=float, default=20, help='time for all (default: 20)')
    parser.add_argument('--seed', type=int, default=0, help='draws the sample (default: 0)')
    return parser.parse_args()


def find_changed() -> list[str]:
    """Modules of rooms that differ from the last commit."""
    command = ['git', 'diff', '--name-only', 'HEAD']
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [name for name in changed if name.endswith('.py') and Path(name).parts[0] in ROOMS]


def find_modules(names: list[str]) -> list[str]:
    """Modules, those of a room where a room is named."""
    rooms = {name: sorted((ROOT / name).glob('*.py')) for name in names if (ROOT / name).is_dir()}
    files = [rooms.get(name, [ROOT / name]) for name in names]
    return [
        str(path.relative_to(ROOT))
        for paths in files
        for path in paths
        if path.name != '__init__.py'
    ]


def find_tests(file: str) -> list[str]:
    """The tests of the room that a module is in, or those named after a module of the root."""
    room = Path(file).parts[0]
    if room in ROOMS:
        return [f'tests/{room}', *(['tests/tools'] if room in CALLED_BY_TOOLS else [])]
    found = (ROOT / 'tests').glob(f'test_{Path(file).stem}*.py')
    return [str(path.relative_to(ROOT)) for path in found]


def copy_files() -> None:
    """The package below ``build/mutants``, under its own name."""
    tracked = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True).stdout
    for name in listed.split():
        target = COPY / 'mmdense' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, target)


def copy_package(files: list[str]) -> None:
    """A new copy of the package, with mutmut's settings beside it."""
    shutil.rmtree(COPY, ignore_errors=True)
    copy_files()
    (COPY / 'mutants').mkdir()  # Python remembers if it is not there when it starts
    tests = sorted({test for name in files for test in find_tests(name)})
    settings = SETTINGS.format(
        files='\n    '.join(f'mmdense/{name}' for name in files),
        tests='\n    '.join(f'mmdense/{test}' for test in tests),
    )
    (COPY / 'setup.cfg').write_text(settings)


def run_mutmut(*args: str, minutes: float | None = None) -> str:
    """Run mutmut in the copy, with one thread per process; it stops when time is up."""
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(COPY / 'mutants'))
    env['PYTEST_XDIST_WORKER'] = 'mutants'  # one thread, says tests/conftest.py
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tests' / 'mutants.py'), INSIDE, *args],
        cwd=COPY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=minutes and 60 * minutes)[0]
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:  # with its children, which would run on
            os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def be_mutmut() -> None:
    """mutmut, quicker, and telling how far it is.

    Left to itself it ends at a test that fails without a fault, runs all tests once more before the
    first fault, those that reach a fault in no order, and is silent to the end.
    """
    sys.path.pop(0)  # the copy has its own tests/
    from mutmut import __main__ as mutmut
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.runners.harness import PytestRunner
    from mutmut.state import state
    from mutmut.utils.file_utils import change_cwd
    from mutmut.utils.format_utils import mangled_name_from_mutant_name
    from mutmut.workers.isolation import ForkServerRunner

    submit, run_stats = ForkServerRunner.submit, PytestRunner.run_stats
    warm_up, at_import = PytestRunner.warm_up, set()  # functions that run when they are imported

    class Recorder:
        """Writes down a fault and the test that saw it."""

        def __init__(self, name: str) -> None:
            self.name, self.start, self.test = name, time.monotonic(), ''

        def pytest_runtest_logreport(self, report: object) -> None:
            if report.failed and not self.test:
                self.test = report.nodeid

        def pytest_sessionfinish(self, exitstatus: int) -> None:
            seconds = time.monotonic() - self.start
            with open(COPY / 'tried.tsv', 'a') as file:
                print(self.name, int(exitstatus), f'{seconds:.1f}', self.test, sep='\t', file=file)

    def warm_up_and_watch(self: PytestRunner) -> None:
        set_mutant_under_test('stats')
        warm_up(self)
        at_import.update(state()._stats)
        set_mutant_under_test('')
        for toolbox in ('mmpretrain', 'mmdet', 'mmseg'):  # else each fault would import them anew
            for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
                importlib.import_module(f'{toolbox}.{part}')

    def run_tests(self: PytestRunner, *, mutant_name: str | None, tests: list[str]) -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # mutmut's server ignores it
        params = self._pytest_args_regular_run(tests)
        with change_cwd('mutants'):
            if mutant_name and mangled_name_from_mutant_name(mutant_name) in at_import:
                # This process imported the package without the fault; another takes its place.
                command = [sys.executable, '-m', 'pytest', *params, *self._pytest_add_cli_args]
                os.execv(sys.executable, command)
            plugins = [Recorder(mutant_name)] if mutant_name else []
            return int(self.execute_pytest(params, plugins=plugins))

    def run_stats_to_the_end(self: PytestRunner, *, tests: list[str]) -> int:
        failed: set[str] = set()

        class Failures:
            def pytest_runtest_logreport(self, report: object) -> None:
                if report.failed:
                    failed.add(report.nodeid)

        execute = self.execute_pytest
        self.execute_pytest = lambda params, plugins: execute(
            [param for param in params if param != '-x'], plugins=[*plugins, Failures()]
        )
        code = run_stats(self, tests=tests)
        (COPY / 'failing.txt').write_text(''.join(f'{test}\n' for test in sorted(failed)))
        for test in failed:
            state().duration_by_test.pop(test, None)
            for found in state().tests_by_mangled_function_name.values():
                found.discard(test)
        return 0 if code == 1 else code

    def submit_quickest_first(
        self: ForkServerRunner, name: str, tests: list[str], limit: int, estimate: float
    ) -> None:
        place = order[mangled_name_from_mutant_name(name)]
        submit(self, name, sorted(tests, key=place.index), limit, estimate)

    PytestRunner.warm_up = warm_up_and_watch
    PytestRunner.run_tests = run_tests
    PytestRunner.run_stats = run_stats_to_the_end
    ForkServerRunner.submit = submit_quickest_first
    if 'none' not in sys.argv:  # all that was done and seen when faults were planted
        order = json.loads((COPY / 'order.json').read_text())
        mutmut.copy_also_copy_files = lambda: None
        mutmut.collect_or_load_stats = lambda *args, **kwargs: mutmut.load_stats()
        mutmut.run_forced_fail_test = lambda runner: None
        ForkServerRunner.run_clean_tests = lambda self, tests: 0
    # What is left when time is up is a fair sample.
    mutmut.estimated_worst_case_time = lambda name: zlib.crc32(name.encode())
    mutmut.cli(sys.argv[2:])


def choose_tests(files: list[str], seconds: float) -> None:
    """Of the tests that reach a function keep the module's own, then the quickest, for a while.

    A module's own tests count for all of it: mutmut sees what they reach in its own process, and
    not what they reach in those they start.
    """
    path = COPY / 'mutants' / 'mutmut-stats.json'
    found = COPY / 'found.json'
    if not found.is_file():
        shutil.copy(path, found)
    stats, now = json.loads(found.read_text()), json.loads(path.read_text())
    duration = now['duration_by_test']
    for function, tests in now['tests_by_mangled_function_name'].items():
        new = set(tests) - set(stats['duration_by_test'])  # tests that were written since
        before = stats['tests_by_mangled_function_name'].get(function, [])
        stats['tests_by_mangled_function_name'][function] = sorted({*before, *new} & set(duration))
    stats['duration_by_test'] = duration
    found.write_text(json.dumps(stats))
    reached = now['tests_by_mangled_function_name'] = stats['tests_by_mangled_function_name']
    order: dict[str, list[str]] = {}
    for file in files:
        start = f'mmdense/tests/{Path(file).parent}/test_{Path(file).stem}'
        own = {test for test in duration if test.startswith((f'{start}.', f'{start}_'))}
        for function in {name.rpartition('__mutmut_')[0] for name in read_results(file)}:
            tests = {*reached.get(function, ()), *own}
            left, kept = seconds, []
            for test in sorted(tests, key=lambda test: (test not in own, duration[test])):
                left -= duration[test]
                if left < 0 and kept:
                    break
                kept.append(test)
            there = {*reached.get(function, ())}
            kept.sort(key=lambda test: (test not in there, duration[test]))
            order[function] = reached[function] = kept
    path.write_text(json.dumps(now))
    (COPY / 'order.json').write_text(json.dumps(order))


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


def draw(files: list[str], args: argparse.Namespace) -> dict[str, list[str]]:
    """The faults to try, by file."""
    names = {file: sorted(read_results(file)) for file in files}
    planted = sum(map(len, names.values()))
    chance = random.Random(args.seed)
    chosen = {}
    for file, all_names in names.items():
        number = args.number
        if args.total:
            number = max(5, round(args.total * len(all_names) / planted))
        chosen[file] = chance.sample(all_names, min(number, len(all_names)))
    return chosen


def report(chosen: dict[str, list[str]]) -> None:
    """Print what survived in each file, and the score of each room and of all."""
    equivalent = EQUIVALENT.read_text()
    scores = {}
    for file, sample in chosen.items():
        results = read_results(file)
        codes = {name: results[name] for name in sample if results.get(name) in SEEN | ALIVE}
        alive = {name: describe(name) for name, code in codes.items() if code in ALIVE}
        real = {
            name: change
            for name, change in alive.items()
            if not change or not (change in equivalent or is_wording(change))
        }
        total = len(codes) - len(alive) + len(real)
        for key in (Path(file).parts[0], 'score'):
            seen, tried = scores.get(key, (0, 0))
            scores[key] = seen + total - len(real), tried + total
        print(
            f'{file}: {total - len(real)} of {total} seen, {len(alive) - len(real)} equivalent, '
            f'{len(sample) - len(codes)} not tried, {len(results)} in all'
        )
        for name, change in real.items():
            print(f'  {name}\n    ' + change.replace('\n', '\n    '))
    for key, (seen, tried) in scores.items():
        print(f'{key}: {seen / max(tried, 1):.1%}, {seen} of {tried}')


def main() -> None:
    args = parse_args()
    if args.again:
        chosen = json.loads((COPY / 'chosen.json').read_text())
        copy_files()
    else:
        files = find_modules(args.files or find_changed())
        if not files:
            sys.exit('no module of a room has changed; name files')
        missing = [name for name in files if not (ROOT / name).is_file()]
        if missing:
            sys.exit(f'error: no such file: {", ".join(missing)}')
        copy_package(files)
    out = run_mutmut('run', '--max-children', '1', 'none')  # plants all; which tests reach which
    if not args.again:
        if not all((COPY / 'mutants' / 'mmdense' / f'{name}.meta').is_file() for name in files):
            sys.exit(f'error: mutmut failed:\n{out[-2000:]}')
        if not (COPY / 'mutants' / 'mutmut-stats.json').is_file():
            sys.exit(f'error: the tests do not pass in the copy, or reach nothing:\n{out[-2000:]}')
        chosen = draw(files, args)
        (COPY / 'chosen.json').write_text(json.dumps(chosen))
    failing = (COPY / 'failing.txt').read_text().split()
    if failing:
        print(f'left out, since they fail without a fault: {", ".join(failing)}')
    choose_tests(list(chosen), args.seconds)
    names = [
        name
        for file, sample in chosen.items()
        for name, code in read_results(file).items()
        if name in sample and code not in SEEN
    ]
    out = run_mutmut('run', '--max-children', str(args.children), *names, minutes=args.minutes)
    (COPY / 'mutmut.log').write_text(out)
    report(chosen)


if __name__ == '__main__':
    if sys.argv[1:2] == [INSIDE]:
        be_mutmut()
    else:
        main()

"""Tests lie where their modules do: room/x.py is tested in tests/room/test_x.py, test_x_*.py."""

from pathlib import Path

from helpers import ROOT

ROOMS = ['.', *sorted(path.parent.name for path in ROOT.glob('[a-z]*/__init__.py'))]
ELSEWHERE = {  # tested with what uses them
    'families/timm.py': 'test_timm_models.py',
    'intake/kinds.py': 'intake/test_faults.py',
    'registry.py': 'test_packaging.py',
    'reporting/collector.py': 'reporting/test_evaluation.py',
    'setup.py': 'test_packaging.py',
    'study/training.py': 'tools/test_study_tool.py',
    'tools/dist_launch.py': 'engine/test_interrupts.py',
    'tools/test.py': 'tools/test_train.py',
}
OF_MANY = {  # no module's alone
    'backbones/test_golden.py',
    'backbones/test_padding.py',
    'engine/test_cuda.py',
    'families/test_families.py',
    'families/test_fifth_family.py',
    'test_bench.py',
    'test_docs.py',
    'test_fresh_process.py',
    'test_fuzz.py',
    'test_hosts.py',
    'test_layout.py',
    'test_packaging.py',
    'test_stress.py',
}


def find_module(test: Path, modules: set[str]) -> str | None:
    """The module of the longest name that a test file's begins with."""
    name = f'{test.stem.removeprefix("test_")}_'
    return max((m for m in modules if name.startswith(f'{m}_')), key=len, default=None)


def test_every_module_has_its_tests():
    """But for those named above, none of which is there in vain."""
    strangers, untested = set(), set()
    for room in ROOMS:
        files = {path.stem: path for path in (ROOT / room).glob('*.py') if path.stem != '__init__'}
        tests = sorted((ROOT / 'tests' / room).glob('test_*.py'))
        found = {test: find_module(test, set(files)) for test in tests}
        strangers |= {test for test, module in found.items() if module is None}
        untested |= {files[module] for module in files.keys() - set(found.values())}
    assert {path.relative_to(ROOT / 'tests').as_posix() for path in strangers} == OF_MANY
    assert {path.relative_to(ROOT).as_posix() for path in untested} == ELSEWHERE.keys()
    assert all((ROOT / 'tests' / test).is_file() for test in ELSEWHERE.values())

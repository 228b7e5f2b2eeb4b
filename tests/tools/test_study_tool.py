"""The study's tool, with trainings that take no time."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mmdense.errors import UserError
from mmdense.study import runs
from mmdense.study.results import read_records, write_records
from mmdense.tools import study as tool

# In place of tools/train.py: top-1 is 0.5 and a hundredth of the seed; notes each call.
TRAIN = """
import json, os, sys, time
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
with open(os.environ['CALLS'], 'a') as calls:
    calls.write(os.environ['BACKBONE'] + ' ' + ' '.join(arguments) + '\\n')
if os.environ.get('SLOW'):
    time.sleep(60)
if os.environ['BACKBONE'] == os.environ.get('BROKEN'):
    print('error: no space left')
    sys.exit(1)
seed = int(next(a for a in arguments if a.startswith('randomness.seed')).partition('=')[2])
value = float(os.environ.get('VALUE', 0.5 + seed / 100))
this = f'{Path(arguments[0]).stem} {os.environ["BACKBONE"]} {seed}'
value = 0.9 if os.environ.get('ODD') == this else value
row = {'accuracy/top1': 100 * value, 'mIoU': 100 * value, 'coco/bbox_mAP': value,
       'coco/segm_mAP': value, 'step': 2}
log = folder / 'now' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
log.write_text(json.dumps({'loss': 1.0, 'iter': 1, 'step': 1}) + '\\n' + json.dumps(row) + '\\n')
(folder / 'epoch_2.pth').touch()
(folder / 'last_checkpoint').write_text('epoch_2.pth')
"""
FAMILIES = ('paca', 'groupmixformer', 'fcvit', 'msf')


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the stand-in; what the tool writes goes there too."""
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'data.json').write_text('{"seed": 0}')
    monkeypatch.setenv('CALLS', str(tmp_path / 'calls'))
    monkeypatch.setattr(tool, 'COMMAND', (sys.executable, str(tmp_path / 'train.py')))
    monkeypatch.setattr(tool, 'COMPARED', tmp_path / 'compared.txt')
    monkeypatch.setattr(runs, 'DATA', tmp_path / 'data.json')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(place, monkeypatch):
    """Calls the tool, on classifiers of some families."""

    def run(*flags: str, only: str = '^classifier/(paca|fcvit)$') -> None:
        files = ['--results', str(place / 'results.json'), '--work-dir', str(place / 'work')]
        monkeypatch.setattr(sys, 'argv', ['study.py', *files, '--only', only, *flags])
        tool.main()

    return run


def read_calls(place: Path) -> list[str]:
    path = place / 'calls'
    return path.read_text().splitlines() if path.exists() else []


def test_every_seed_of_every_run_has_a_result(call, place):
    call()
    records = read_records(place / 'results.json')
    assert set(records) == {'classifier/paca', 'classifier/fcvit'}
    for record in records.values():
        assert record.collect('top-1') == [0.5, 0.51, 0.52]
        assert record.summarize('top-1') == pytest.approx((0.51, 0.01))
        assert all(result.memory > 0 for result in record.results.values())
    assert records['classifier/fcvit'].cost.params == 1027176
    assert sorted(line.split()[0] for line in read_calls(place)) == ['fcvit'] * 3 + ['paca'] * 3


def test_results_are_not_measured_again(call, place, capsys):
    call('--seeds', '0')
    before = (place / 'results.json').read_text()
    call('--seeds', '0')
    assert len(read_calls(place)) == 2 and (place / 'results.json').read_text() == before
    call('--seeds', '0', '1', '--list')
    assert len(read_calls(place)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ['classifier/paca, seed 1', 'classifier/fcvit, seed 1']
    assert lines[-3].startswith('4 runs, 2 with results')


def test_other_data_are_measured_again(call, place):
    call('--seeds', '0')
    (place / 'data.json').write_text('{"seed": 1}')
    call('--seeds', '0')
    assert len(read_calls(place)) == 4


def test_a_network_starts_from_its_classifier(call, place, monkeypatch):
    """Which is trained first, or again where only its result is left, which stays."""
    call('--seeds', '1', only='^segmentor/paca pretrained$')
    folder = place / 'work' / 'classifier' / 'paca' / 'seed_1'
    first, second = read_calls(place)
    assert first.startswith('paca configs/study/classifier.py')
    assert second.startswith('paca configs/study/segmentor.py')
    assert f'init_cfg.checkpoint={folder}/epoch_2.pth' in second
    shutil.rmtree(place / 'work')
    monkeypatch.setenv('VALUE', '0.1')
    call('--seeds', '1', only='^segmentor_fcn/paca pretrained$')
    assert [line.split()[1] for line in read_calls(place)[2:]] == [
        'configs/study/classifier.py',
        'configs/study/segmentor_fcn.py',
    ]
    records = read_records(place / 'results.json')
    assert records['classifier/paca'].collect('top-1') == [0.51]
    assert records['segmentor_fcn/paca pretrained'].collect('mIoU') == [0.1]


def test_a_failure_does_not_end_the_others(call, place, monkeypatch):
    monkeypatch.setenv('BROKEN', 'paca')
    with pytest.raises(UserError) as failure:
        call('--workers', '1')
    lines = str(failure.value).split('; ')
    assert len(lines) == 3 and all('failed: error: no space left' in line for line in lines)
    records = read_records(place / 'results.json')
    assert list(records) == ['classifier/fcvit'] and len(records['classifier/fcvit'].results) == 3


def test_what_starts_from_a_failure_is_not_trained(call, place, monkeypatch, capsys):
    """Not even from a checkpoint that an older training left."""
    only = '^(classifier|segmentor)/paca( pretrained)?$'
    call('--seeds', '0', only='^classifier/paca$')
    (place / 'data.json').write_text('{"seed": 1}')
    monkeypatch.setenv('BROKEN', 'paca')
    with pytest.raises(UserError, match='pretrained, seed 0: what it starts from failed'):
        call('--seeds', '0', only='^segmentor/paca pretrained$')
    assert [line.split()[1] for line in read_calls(place)] == 2 * ['configs/study/classifier.py']
    assert 'classifier/paca, seed 0: ' in capsys.readouterr().out
    monkeypatch.delenv('BROKEN')
    call('--seeds', '0', only=only)
    assert len(read_calls(place)) == 5  # the classifier, segmentors from scratch and from it


def test_a_changed_classifier_is_trained_before_what_starts_from_it(call, place):
    call('--seeds', '0', only='^classifier/paca$')
    (place / 'data.json').write_text('{"seed": 1}')
    call('--seeds', '0', only='^segmentor/paca pretrained$')
    assert [line.split()[1] for line in read_calls(place)[1:]] == [
        'configs/study/classifier.py',
        'configs/study/segmentor.py',
    ]


def test_results_of_other_data_are_not_mixed(call, place):
    call(only='^classifier/paca$')
    (place / 'data.json').write_text('{"seed": 1}')
    call('--seeds', '1', only='^classifier/paca$')
    assert set(read_records(place / 'results.json')['classifier/paca'].results) == {1}


def test_another_work_dir_is_no_other_run(call, place):
    call('--seeds', '0', only='^segmentor/paca pretrained$')
    shutil.move(place / 'work', place / 'moved')
    call('--seeds', '0', '--work-dir', str(place / 'moved'), only='^segmentor/paca pretrained$')
    assert len(read_calls(place)) == 2


def test_anew(call, place, monkeypatch):
    call('--seeds', '0', only='^classifier/paca$')
    monkeypatch.setenv('VALUE', '0.7')
    call('--seeds', '0', only='^classifier/paca$')
    call('--seeds', '0', '--anew', only='^classifier/paca$')
    assert read_records(place / 'results.json')['classifier/paca'].collect('top-1') == [0.7]
    assert len(read_calls(place)) == 2


def test_no_run_begins_when_time_is_over(call, place):
    with pytest.raises(UserError, match='classifier/paca, seed 0: not begun, --hours are over'):
        call('--hours', '0')
    assert not read_calls(place)


class TestRegress:
    @pytest.fixture
    def measured(self, call, place):
        call(only=f'^classifier/({"|".join(FAMILIES)})$')
        before = (place / 'results.json').read_text()
        yield len(read_calls(place))
        assert (place / 'results.json').read_text() == before

    def test_nothing_changed(self, measured, call, place):
        call('--regress', '--work-dir', str(place / 'again'), only='^classifier')
        calls = read_calls(place)[measured:]
        assert sorted(line.split()[0] for line in calls) == sorted(FAMILIES)
        assert all('randomness.seed=0' in line for line in calls)

    def test_worse_or_better(self, measured, call, place, monkeypatch):
        for value in ('0.47', '0.55'):
            monkeypatch.setenv('VALUE', value)
            with pytest.raises(UserError) as failure:
                call('--regress', '--work-dir', str(place / value), only='^classifier')
            lines = str(failure.value).split('; ')
            assert len(lines) == 4
            assert lines[0] == f'classifier/paca: top-1 is {value}0, not 0.510 +- 0.030'

    def test_one_seed_far_out(self, call, place, monkeypatch):
        """The next one decides, and what it starts from is trained too."""
        names = '^(classifier|segmentor)/(paca|fcvit)( pretrained)?$'
        call(only=names)
        measured = len(read_calls(place))
        monkeypatch.setenv('ODD', 'segmentor fcvit 0')
        call('--regress', '--work-dir', str(place / 'again'), '--workers', '1', only=names)
        calls = read_calls(place)[measured:]
        order = [line.split()[0] for line in calls]
        assert [sorted(order[i : i + 2]) for i in (0, 2)] == [['fcvit', 'paca']] * 2
        assert order[4:] == ['fcvit'] * 2
        assert ['seed_0' in line for line in calls] == [True] * 4 + [False] * 2

    def test_the_longest_are_first(self, call, place):
        """So that no core waits for one at the end."""
        names = '^classifier/(paca|fcvit|msf)$'
        call(only=names)
        measured = len(read_calls(place))
        records = read_records(place / 'results.json')
        for family, seconds in dict(paca=7.0, fcvit=3.0, msf=9.0).items():
            results = records[f'classifier/{family}'].results
            results[0] = results[0]._replace(core_seconds=seconds)
        write_records(place / 'results.json', records)
        call('--regress', '--work-dir', str(place / 'again'), '--workers', '1', only=names)
        order = [line.split()[0] for line in read_calls(place)[measured:]]
        assert order == ['msf', 'paca', 'fcvit']

    def test_without_the_classifiers(self, call, place, monkeypatch):
        call(only='^segmentor/(paca|fcvit) pretrained$')
        measured = len(read_calls(place))
        monkeypatch.setenv('ODD', 'segmentor fcvit 0')
        flags = ['--regress', '--work-dir', str(place / 'again')]
        call(*flags, only='^segmentor/(paca|fcvit) pretrained$')
        assert len(read_calls(place)) == measured + 6

    def test_only_where_the_code_has_changed(self, call, place, monkeypatch):
        call(only=f'^[a-z]+/({"|".join(FAMILIES)})( pretrained)?$')

        def count_calls(number: int, *flags: str, only: str = '') -> int:
            before = len(read_calls(place))
            folder = str(place / f'again{number}')
            call('--regress', '--if-changed', '--work-dir', folder, *flags, only=only)
            return len(read_calls(place)) - before

        assert count_calls(0, only='^classifier/paca$') == 1  # of a part, nothing is noted
        monkeypatch.setenv('VALUE', '0.1')
        with pytest.raises(UserError, match='top-1 is 0'):
            count_calls(1)
        monkeypatch.delenv('VALUE')
        assert count_calls(2) == 12
        assert count_calls(3) == 0
        (place / 'data.json').write_text('{"seed": 1}')
        with pytest.raises(UserError, match='or of another config or other data'):
            count_calls(4)

    def test_without_results(self, measured, call, place):
        with pytest.raises(UserError, match="'detector/paca pretrained' has no results of seeds"):
            call('--regress', '--work-dir', str(place / 'again'), only='detector/paca')
        assert len(read_calls(place)) == measured


@pytest.mark.parametrize('flags, message', [
    (['--only', 'nothing'], "no run has a name with 'nothing'"),
    (['--cluster', 'none'], '--cluster needs submitit|--cluster none: '),
])  # fmt: skip
def test_bad_input(flags, message, call, place):
    with pytest.raises(UserError, match=message):
        call(*flags)
    assert not (place / 'results.json').exists()


@pytest.mark.parametrize(
    'flags',
    [
        ['--only', '('],
        ['--workers', '0'],
        ['--seeds', 'a'],
        ['--if-changed'],
        ['--anew', '--regress'],
    ],
)
def test_bad_flags(flags, call, capsys):
    with pytest.raises(SystemExit) as end:
        call(*flags)
    assert end.value.code == 2 and flags[0] in capsys.readouterr().err


def test_without_data(call, place):
    (place / 'data.json').unlink()
    with pytest.raises(UserError, match='run `make data` first'):
        call()


def test_a_killed_study_goes_on(call, place, monkeypatch):
    """Its trainings end with it, though it cannot tell them to."""
    code = (
        'import sys\n'
        'from pathlib import Path\n'
        'from mmdense.study import runs\n'
        'from mmdense.tools import study as tool\n'
        f'tool.COMMAND = {tool.COMMAND!r}\n'
        f'runs.DATA = Path({str(runs.DATA)!r})\n'
        'tool.main()\n'
    )
    files = ['--results', str(place / 'results.json'), '--work-dir', str(place / 'work')]
    flags = ['--only', '^classifier/paca$', '--seeds', '0', '1', '--workers', '1']
    call('--seeds', '0', only='^classifier/paca$')
    process = subprocess.Popen(
        [sys.executable, '-c', code, *files, *flags], env=dict(os.environ, SLOW='1')
    )
    while len(read_calls(place)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while find_trainings(place):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    call('--seeds', '0', '1', only='^classifier/paca$')
    assert read_records(place / 'results.json')['classifier/paca'].collect('top-1') == [
        0.5,
        0.51,
    ]
    assert len(read_calls(place)) == 3


def find_trainings(place: Path) -> list[int]:
    """Processes that run the stand-in."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):
            if str(place / 'train.py') in (folder / 'cmdline').read_text():
                found.append(int(folder.name))
    return found

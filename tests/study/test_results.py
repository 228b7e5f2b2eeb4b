"""What the study says of results."""

import math

import pytest
from helpers import ROOT

from mmdense.errors import UserError
from mmdense.study.results import (
    RESULTS,
    Cost,
    Record,
    find_regressions,
    read_records,
    write_records,
)
from mmdense.study.runs import FOLDER, SEEDS, Run, get_facts, list_runs, read_tables
from mmdense.study.steps import Result


def make_result(**metrics: float) -> Result:
    return Result('0' * 64, 1.5, 1.0, 100, None, metrics)


@pytest.fixture
def records():
    results = {seed: make_result(mIoU=0.5 + 0.1 * seed) for seed in SEEDS}
    return {'segmentor/paca': Record(Cost(10, 20, 30), results)}


def test_file(records, tmp_path):
    path = tmp_path / 'results.json'
    assert read_records(path) == {}
    write_records(path, records)
    assert read_records(path) == records


@pytest.mark.parametrize('text', ['', '[]', '{"a": 1}', '{"a": {"params": 1}}', 'no json'])
def test_another_file(text, tmp_path):
    path = tmp_path / 'results.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r"results.json' holds no results of a study"):
        read_records(path)


def test_mean_and_deviation(records):
    mean, deviation = records['segmentor/paca'].summarize('mIoU')
    assert mean == pytest.approx(0.6) and deviation == pytest.approx(0.1)
    one = Record(Cost(1, 1, 1), {0: make_result(mIoU=0.5)})
    assert one.summarize('mIoU')[0] == 0.5 and math.isnan(one.summarize('mIoU')[1])


@pytest.mark.parametrize('value, is_fine', [
    (0.6, True), (0.31, True), (0.89, True), (0.29, False), (0.91, False), (math.nan, False),
])  # fmt: skip
def test_beyond_three_deviations(value, is_fine, records):
    found = find_regressions(
        records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=value)
    )
    assert len(found) == (not is_fine)
    if found:
        assert found[0].startswith('segmentor/paca: mIoU is ') and '0.600 +- 0.300' in found[0]


def test_seeds_that_agree_by_chance(records):
    """Those of other runs of the config do not."""
    same = {seed: make_result(mIoU=0.5) for seed in SEEDS}
    records |= {'segmentor/fcvit': Record(Cost(1, 1, 1), same), 'detector/msf': None}
    runs = [Run('segmentor', 'paca'), Run('segmentor', 'fcvit'), Run('detector', 'msf')]
    for value, number in ((0.5 + 0.14, 0), (0.5 + 0.16, 1)):  # 3 times what lies between 0 and 0.1
        result = make_result(mIoU=value)
        assert len(find_regressions(records, runs, runs[1], result)) == number


def test_what_others_have_hides_no_loss():
    """A metric of .06 may differ by .03, wherever those of other runs lie."""
    low = {seed: make_result(mIoU=0.06) for seed in SEEDS}
    wide = {seed: make_result(mIoU=0.4 + 0.1 * seed) for seed in SEEDS}
    records = {
        'segmentor/msf': Record(Cost(1, 1, 1), low),
        'segmentor/paca': Record(Cost(1, 1, 1), wide),
        'segmentor/fcvit': Record(Cost(1, 1, 1), wide),
    }
    runs = [Run('segmentor', name) for name in ('msf', 'paca', 'fcvit')]
    for value, number in ((0.032, 0), (0.028, 1), (0.0, 1)):
        assert len(find_regressions(records, runs, runs[0], make_result(mIoU=value))) == number


def test_each_metric_can_fail():
    """Of those that are trained again: no network that has learned nothing passes."""
    records = read_records(ROOT / FOLDER / RESULTS)
    runs = list_runs([table for table in read_tables() if table.regress])
    assert len(runs) == 12
    for run in runs:
        lost = dict.fromkeys(get_facts(run.config).metrics, 0.0)
        assert len(find_regressions(records, runs, run, make_result(**lost))) == len(lost)


def test_all_seeds_agree():
    same = {seed: make_result(mIoU=0.5) for seed in SEEDS}
    records = {'segmentor/paca': Record(Cost(1, 1, 1), same)}
    assert not find_regressions(
        records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=0.51)
    )
    assert find_regressions(
        records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=0.52)
    )

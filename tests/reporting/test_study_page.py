"""The study's page says what was measured, and what was not yet."""

import re

import pytest
from helpers import ROOT

from mmdense.reporting.study import draw_costs, write_page, write_table
from mmdense.study.results import RESULTS, Cost, Record, read_records
from mmdense.study.runs import Run, Table, read_tables
from mmdense.study.steps import Result

TABLE = Table(
    'Families',
    'Which?',
    {
        'PaCa-ViT': [Run('classifier', 'paca'), Run('detector', 'paca', pretrained=True)],
        'MSF': [Run('classifier', 'msf'), Run('detector', 'msf', pretrained=True)],
    },
)


def make_record(macs: int, **metrics: list[float]) -> Record:
    seeds = range(len(next(iter(metrics.values()))))
    return Record(
        Cost(1_230_000, macs, 2 * macs),
        {
            i: Result(
                '',
                99.0,
                10.0 + 5 * i,
                1000 + i,
                None,
                {k: values[i] for k, values in metrics.items()},
            )
            for i in seeds
        },
    )


RECORDS = {
    'classifier/paca': make_record(12_300_000, **{'top-1': [0.8, 0.9]}),
    'detector/paca pretrained': make_record(
        70_000_000, **{'box AP': [0.3, 0.3], 'mask AP': [0.2, 0.25]}
    ),
    'classifier/msf': make_record(40_000_000, **{'top-1': [0.5, 0.5]}),
}


def test_table():
    rows = [row.strip('| ').split(' | ') for row in write_table(TABLE, RECORDS).splitlines()]
    titles = 'network,parameters,MACs,with heads,top-1,box AP,mask AP,core seconds,MiB'
    assert rows[0] == titles.split(',')
    assert rows[2] == [
        'PaCa-ViT', '1.23 M', '12 M / 70 M', '25 M / 140 M',
        '0.850 ± 0.071', '0.300 ± 0.000', '0.225 ± 0.035',
        '10 / 10', '1001 / 1001',
    ]  # fmt: skip
    assert write_table(TABLE, RECORDS).splitlines()[3] == (
        '| MSF | 1.23 M | 40 M | 80 M | 0.500 ± 0.000 |  |  | 10 | 1001 |'
    )


def test_one_seed_has_no_deviation():
    records = {'classifier/paca': make_record(1, **{'top-1': [0.8]})}
    assert '| 0.800 |' in write_table(TABLE, records)


def test_plots():
    figure = draw_costs([TABLE], RECORDS)
    by_macs, by_seconds = figure.axes[0], figure.axes[3]
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ['top-1', 'box AP', 'mask AP']
    points = {c.get_label(): c.lines[0].get_xydata()[0] for c in by_macs.containers}
    assert points['PaCa-ViT'] == pytest.approx([12.3, 0.85]) and points['MSF'][0] == 40.0
    assert by_seconds.containers[0].lines[0].get_xydata()[0] == pytest.approx([10, 0.85])


def test_page_is_fresh():
    """Run `make zoo` after a change of the results."""
    records = read_records(ROOT / 'configs' / 'study' / RESULTS)
    page = (ROOT / 'docs' / 'study.md').read_text()
    assert page == write_page(read_tables(), records)
    for target in re.findall(r'\]\(([^)]+)\)', page):
        assert (ROOT / 'docs' / target).exists(), target

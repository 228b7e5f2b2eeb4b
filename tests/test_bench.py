"""``make bench`` tells what became slower or larger; the figures are made up, nothing is timed."""

import json

import bench
import pytest
from bench import Figures

from mmdense.inference.benchmark import Timing

THEN = {'a': Figures(0.4, 20.0), 'b': Figures(0.2, 10.0), 'gone': Figures(0.3, 5.0)}


def tell(now: dict[str, Figures], limit: float = 0.1, **machine: object) -> int:
    rows = {row: figures._asdict() for row, figures in THEN.items()}
    baseline = dict(machine={**bench.describe_machine(), **machine}, rows=rows)
    return bench.report(now, json.loads(json.dumps(baseline)), limit)


@pytest.mark.parametrize(
    ('a', 'worse'),
    [
        (Figures(0.4, 20.0), {}),
        (Figures(0.8, 5.0), {}),  # better in both
        (Figures(0.365, 21.9), {}),  # within the limits
        (Figures(0.363, 20.0), {'slower': ['a']}),  # 0.4 / 1.1 is 0.3636
        (Figures(0.4, 22.1), {'more tensors': ['a']}),
        (Figures(0.1, 40.0), {'slower': ['a'], 'more tensors': ['a']}),
    ],
)
def test_what_is_worse_ends_with_1_and_its_names(a, worse, capsys):
    now = {'a': a, 'b': THEN['b']}
    assert bench.find_worse(now, THEN, 0.1) == worse
    assert tell(now) == (1 if worse else 0)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == '; '.join(f'{word}: a' for word in worse) or not worse


def test_limit_is_of_time_alone():
    assert tell({'a': Figures(0.3, 20.0)}, limit=0.5) == 0
    assert tell({'a': Figures(0.4, 25.0)}, limit=0.5) == 1


def test_a_row_that_the_baseline_lacks_is_told_and_not_worse(capsys):
    assert tell({'a': THEN['a'], 'new': Figures(0.01, 900.0)}) == 0
    table = capsys.readouterr().out
    assert 'not in the baseline: new' in table
    row = next(line for line in table.splitlines() if line.startswith('new'))
    assert row.split() == ['new', '0.01', '-', '-', '900.0', '-']


def test_table_has_now_then_and_ratio(capsys):
    tell({'a': Figures(0.5, 21.0)})
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('a '))
    assert row.split() == ['a', '0.5', '0.4', '1.250', '21.0', '20.0']


def test_another_machine_is_told(capsys):
    tell({'a': THEN['a']})
    assert 'made with' not in capsys.readouterr().out
    tell({'a': THEN['a']}, capability='none', torch='0.1')
    table = capsys.readouterr().out
    assert 'baseline was made with none' in table and 'baseline was made with 0.1' in table


def test_share_is_of_the_products_around_a_pass():
    """Medians of each round's own ratio: a busy moment slows pass and products alike."""
    macs = bench.PRODUCTS * bench.SIDE**3
    before, after = Timing(1, [1.0, 10.0, 1.0]), Timing(1, [3.0, 30.0, 3.0])
    assert bench.get_share(macs, before, Timing(1, [4.0, 40.0, 400.0]), after) == 0.5


def test_rows_are_published_networks():
    """A config for each; MSF, which classifies only, without the large image."""
    assert len(bench.ROWS) == 20 and len(bench.NETWORKS) == 7
    for name in bench.NETWORKS:
        assert (bench.BASELINE.parents[1] / 'configs' / f'{name}_in1k.py').is_file()

"""What is told of a model's cost."""

import json

from mmdense.families.family import Published
from mmdense.inference.flops import Complexity, Count
from mmdense.inference.flops_report import as_json, print_configs, print_table

FOUND = Complexity(
    params=3_000_000,
    macs=7_000_000_000,
    activations=2_500_000,
    shape=(64, 96),
    modules={
        'backbone': Count(2_000_000, 6_000_000_000),
        'backbone.stem': Count(500_000, 1_000_000_000),
        'head': Count(1_000_000, 1_000_000_000),
    },
    original=Published(2.9, 7.4),
)


def test_json():
    content = json.loads(as_json(FOUND, 'a.py', by_module=False, original=False))
    assert content['modules'] == {
        'backbone': dict(params=2_000_000, macs=6_000_000_000),
        'head': dict(params=1_000_000, macs=1_000_000_000),
    }
    assert (content['params'], content['macs'], content['shape']) == (3e6, 7e9, [64, 96])
    assert content['config'] == 'a.py' and 'original' not in content
    content = json.loads(as_json(FOUND, 'a.py', by_module=True, original=True))
    assert content['modules'].keys() == {'backbone', 'backbone.stem', 'head'}
    assert content['original'] == dict(params=2.9, flops=7.4)


def test_table(capsys):
    print_table(FOUND, detector=False, by_module=False, original=False)
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[1:4]] == [
        ['backbone', '2.000', 'M', '6.000', 'G'],
        ['head', '1.000', 'M', '1.000', 'G'],
        ['all', '3.000', 'M', '7.000', 'G'],
    ]
    assert 'one image of 64 x 96; ' in out and 'authors' not in out and '2.5 M' in out
    print_table(FOUND, detector=True, by_module=True, original=True)
    out = capsys.readouterr().out
    assert 'backbone.stem' in out and '64 x 96, 1000 regions and ' in out
    assert "as the backbone's authors count: 2.90 M, 7.40 G" in out


def test_every_config(capsys):
    print_configs(as_json=True)
    rows = {row.pop('config'): row for row in json.loads(capsys.readouterr().out)}
    assert rows['paca/paca_t_in1k']['params'] == 12_200_680
    assert rows['paca/paca_t_in1k']['shape'] == [224, 224]
    print_configs(as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['paca/paca_t_in1k', '224', 'x', '224', '12.201', 'M', '3.219', 'G'] in lines
    assert len(lines) == len(rows) + 1

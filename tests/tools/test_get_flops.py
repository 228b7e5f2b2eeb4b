"""tools/get_flops.py: the counts as a table and as JSON."""

import json
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import CONFIGS, check_fails


@pytest.fixture
def run(run_tool) -> Callable[..., tuple[int, str, str]]:
    return partial(run_tool, 'get_flops.py')


def test_json(run):
    config = str(CONFIGS / 'paca' / 'paca_t_in1k.py')
    code, out, _ = run(config, '--json', '--convention', 'original')
    found = json.loads(out)
    assert code == 0 and found['shape'] == [224, 224]
    assert found['params'] == 12200680
    assert found['macs'] / 1e9 == pytest.approx(3.219, abs=6e-4)
    assert found['modules'].keys() == {'backbone', 'head'}
    assert found['torch'] == torch.__version__ and 'flop_counter' in found['counter']
    assert found['original'].keys() == {'params', 'flops'} and found['activations'] > 1e7


def test_table(run):
    config = str(CONFIGS / 'paca' / 'mask_rcnn_paca_t_1x.py')
    code, out, _ = run(config, '--shape', '256', '320')
    assert code == 0
    for text in ('backbone', 'neck', 'rpn_head', 'roi_head', '256 x 320', '1000 regions'):
        assert text in out


def test_modules(run):
    config = str(CONFIGS / 'fcvit' / 'fcvit_tiny_in1k.py')
    _, out, _ = run(config, '--json', '--by-module')
    modules = json.loads(out)['modules']
    assert modules['backbone.stages.0.blocks.0.token_mixer.0.dwconv']['macs'] == 56 * 56 * 32 * 121


@pytest.mark.parametrize(
    'args, message',
    [
        (('nothing.py',), 'does not exist'),
        ((str(CONFIGS / '_base_/ema.py'),), 'no config of a classifier'),
        ((str(CONFIGS / 'paca/paca_t_in1k.py'), '--shape', '8'), 'at least 32'),
        (
            (str(CONFIGS / 'paca/paca_t_in1k.py'), '--shape', '64', '64', '64'),
            'one or two',
        ),
    ],
)
def test_bad_input(run, args, message):
    result = run(*args)
    check_fails(result, message)
    assert not result[1]

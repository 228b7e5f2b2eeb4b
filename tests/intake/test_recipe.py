"""Batches, rates and epochs, worked out by hand."""

import pytest
from helpers import load_config

from mmdense.intake.recipe import decide, find_most, get_momentum


@pytest.mark.parametrize(
    'pictures, fitting, processes, epochs, wanted',
    [  # wanted: batch, batches a step, epochs, rate for a recipe of 8 with 0.002
        (1000, 4, 1, None, (4, 2, 20, 0.002)),
        (4000, 8, 1, None, (8, 1, 12, 0.002)),
        (1000, 2, 2, None, (2, 2, 20, 0.002)),
        (1000, 1, 8, None, (1, 1, 20, 0.002)),
        (250, 4, 1, None, (4, 2, 80, 0.002)),
        (45, 4, 1, None, (4, 1, 100, 0.001)),
        (3, 1, 1, None, (1, 1, 100, 0.00025)),
        (45, 4, 1, 5, (4, 1, 5, 0.001)),
    ],
)
def test_recipe(pictures, fitting, processes, epochs, wanted, monkeypatch):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    cfg = load_config('own/faster_rcnn_paca_own')
    decided = decide(cfg, pictures, fitting, epochs)
    found = (decided.batch, decided.counts, decided.epochs, decided.lr)
    assert found == pytest.approx(wanted)
    assert decided.processes == processes


def test_nodes_count(monkeypatch):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    monkeypatch.setenv('NNODES', '4')
    cfg = load_config('own/faster_rcnn_paca_own')
    assert decide(cfg, 10**6, 1, None).processes == 8


@pytest.mark.parametrize('pictures, wanted', [(1, 1), (20, 2), (79, 4), (10**6, 8)])
def test_small_sets_take_small_steps(pictures, wanted):
    assert find_most(load_config('own/faster_rcnn_paca_own'), pictures) == wanted


def test_average_forgets_the_start():
    """What is left of the first weights after all iterations is below a thousandth."""
    cfg = load_config('own/faster_rcnn_paca_own')
    for pictures in (3, 60, 1000, 100000):
        decided = decide(cfg, pictures, 4, None)
        left = (1 - get_momentum(decided)) ** (decided.epochs * decided.iterations)
        assert left < 1e-3

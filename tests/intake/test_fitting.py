"""The largest batch that fits into the memory."""

from types import SimpleNamespace

import pytest
import torch

from mmdense.engine.config import read_config
from mmdense.errors import UserError
from mmdense.intake import fitting
from mmdense.intake.examining import examine
from mmdense.intake.preparing import prepare

pytestmark = pytest.mark.usefixtures('there')


@pytest.mark.parametrize('room, most, wanted', [(5, 64, 4), (64, 16, 16), (1, 8, 1), (9, 6, 4)])
def test_largest_power_of_two(room, most, wanted, monkeypatch):
    monkeypatch.setattr(fitting, 'fits', lambda cfg, batch: batch <= room)
    assert fitting.find_batch(None, most) == wanted


def test_nothing_fits(monkeypatch):
    monkeypatch.setattr(fitting, 'fits', lambda cfg, batch: False)
    with pytest.raises(UserError, match='not one picture fits'):
        fitting.find_batch(None, 8)


@pytest.mark.parametrize('most, least, tried', [(1, 1, [1, 2]), (4, 1, [1, 2, 4]), (1, 2, [2])])
def test_heads_that_need_two(most, least, tried, monkeypatch):
    batches = []

    def step(cfg: object, batch: int, device: torch.device) -> None:
        batches.append(batch)
        if batch == 1:
            raise ValueError('Expected more than 1 value per channel when training, got input')

    for name in ('reset_peak_memory_stats', 'max_memory_reserved', 'empty_cache'):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    memory = SimpleNamespace(total_memory=1)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: memory)
    monkeypatch.setattr(fitting, 'step_twice', step)
    assert fitting.find_batch(None, most, least) == tried[-1]
    assert batches == tried


def test_other_errors_of_a_trial_are_raised(monkeypatch):
    def fail(cfg: object, batch: int) -> bool:
        raise ValueError('something else')

    monkeypatch.setattr(fitting, 'fits', fail)
    with pytest.raises(ValueError, match='something else'):
        fitting.find_batch(None, 8)


def test_trial_is_a_step_of_the_training(own):
    path, _ = prepare(examine(own('classes')), None, None)
    fitting.step_twice(read_config(str(path)), 2, torch.device('cpu'))

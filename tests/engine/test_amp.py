"""Mixed precision on the CPU."""

import pytest
import torch
from mmengine.config import Config

from mmdense.engine import training
from mmdense.engine.amp import warn_of_emulation
from mmdense.registry import OPTIM_WRAPPERS


def test_cpu_amp_runs_in_bfloat16():
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type='CPUAmpOptimWrapper', optimizer=optimizer))
    with wrapper.optim_context(layer):
        out = layer(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    before = layer.weight.clone()
    wrapper.update_params(out.float().square().mean())
    assert layer.weight.dtype == torch.float32 and not torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    'device, capability, warned',
    [('cpu', 'AVX2', True), ('cpu', 'AVX512', False), ('cuda', 'AVX2', False)],
)
def test_who_is_warned_of_half_the_bits(device, capability, warned, monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    warn_of_emulation(device)
    assert capsys.readouterr().err.startswith('warning: this CPU has no products') == warned


def test_training_in_half_the_bits_warns(monkeypatch):
    devices = []
    monkeypatch.setattr(training, 'warn_of_emulation', devices.append)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    training.enable_amp(Config(dict(optim_wrapper=dict(type='OptimWrapper'))))
    assert devices == ['cpu']

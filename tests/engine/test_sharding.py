"""Two processes that share a model's parameters train as one that has them all."""

from pathlib import Path

import pytest
import torch
from helpers import ROOT
from processes import run_in_two
from torch import nn

from mmdense.engine.sharding import FullyShardedModel, find_blocks
from mmdense.errors import UserError
from mmdense.serialization.checkpoint import load_file

TRAIN = ROOT / 'tools' / 'train.py'
CONFIG = """
_base_ = 'mmdense::digits/paca_digits.py'
model = dict(backbone=dict(drop_path_rate=0.0))
train_cfg = dict(max_epochs={epochs})
train_dataloader = dict(
    batch_size={batch_size},
    sampler=dict(shuffle=False),
    dataset=dict(indices=16, pipeline={{{{_base_.test_pipeline}}}}),
)
val_dataloader = dict(dataset=dict(indices=12))
test_dataloader = val_dataloader
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
param_scheduler = None
{more}
"""
SHARED = "model_wrapper_cfg = dict(type='mmdense.FullyShardedModel')"


def write(path: Path, epochs: int = 2, batch_size: int = 8, more: str = '') -> Path:
    path.write_text(CONFIG.format(epochs=epochs, batch_size=batch_size, more=more))
    return path


@pytest.mark.slow
def test_equal_to_one_process(place, run_tool):
    """Weights, optimizer and losses; the checkpoint is whole, and either goes on from it."""
    code, _, err = run_tool('train.py', write(place / 'one.py'), '--work-dir', 'one')
    assert code == 0, err
    two = write(place / 'two.py', batch_size=4, more=SHARED)
    run_in_two(place, TRAIN, two, '--work-dir', 'two')
    one, two = (load_file(f'{name}/epoch_2.pth') for name in ('one', 'two'))
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value, rtol=1e-4, atol=1e-4)
    assert one['optimizer']['state'].keys() == two['optimizer']['state'].keys()
    for index, state in one['optimizer']['state'].items():
        for key, value in state.items():
            torch.testing.assert_close(
                two['optimizer']['state'][index][key], value, rtol=1e-3, atol=1e-5
            )

    # One process goes on with what two have written, and two with what one has.
    longer = dict(epochs=3)
    write(place / 'one.py', **longer)
    code, _, err = run_tool(
        'train.py', 'one.py', '--work-dir', 'one_on', '--resume', 'two/epoch_2.pth'
    )
    assert code == 0, err
    write(place / 'two.py', batch_size=4, more=SHARED, **longer)
    run_in_two(place, TRAIN, 'two.py', '--work-dir', 'two_on', '--resume', 'one/epoch_2.pth')
    one, two = (load_file(f'{name}_on/epoch_3.pth')['state_dict'] for name in ('one', 'two'))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-4)


def test_blocks_are_those_of_the_innermost_lists():
    def block() -> nn.Module:
        layer = nn.Module()
        layer.linear = nn.Linear(1, 1)
        return layer

    model, stage = nn.Module(), nn.Module()
    stage.blocks = nn.ModuleList([block(), nn.Sequential(block(), block())])
    stage.norms = nn.ModuleList([nn.LayerNorm(1)])
    model.backbone = nn.Module()
    model.backbone.stages = nn.ModuleList([stage])
    model.head = nn.ModuleList([block()])
    first, (second, third) = stage.blocks
    assert find_blocks(model) == [first, second, third]


def test_without_processes():
    with pytest.raises(UserError, match='needs a launcher'):
        FullyShardedModel(nn.Linear(1, 1))


@pytest.mark.slow
def test_averaged_weights_are_refused(place):
    more = SHARED + "\ncustom_hooks = [dict(type='EMAHook')]"
    config = write(place / 'two.py', batch_size=4, more=more)
    with pytest.raises(AssertionError, match='averaged weights'):
        run_in_two(place, TRAIN, config, '--work-dir', 'two')

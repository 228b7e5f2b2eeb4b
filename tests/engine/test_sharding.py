"""Two processes that share a model's parameters train as one that has them all."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from helpers import ROOT
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS
from processes import find_port, fork, run_in_two, wait
from torch import nn
from torch.distributed.tensor import DTensor
from toy import ToyModel, make_config

from mmdense.engine import launch, training
from mmdense.engine.sharding import (
    FullyShardedModel,
    ShardedCheckpointHook,
    find_blocks,
    gather,
    share,
)
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


class Block(nn.Module):
    """Two layers, as blocks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


@MODELS.register_module()
class ToyOfBlocks(ToyModel):
    sizes = set()  # of a block's first weight here, while the block does not run

    def __init__(self) -> None:
        super().__init__(ballast=3)
        self.backbone = nn.ModuleList([Block(), Block()])

    def forward(self, inputs: list[torch.Tensor], mode: str = 'tensor') -> dict | list:
        weight = self.backbone[0].layers[0].weight
        ToyOfBlocks.sizes.add(getattr(weight, 'to_local', lambda: weight)().numel())
        x = torch.stack(inputs)
        for block in self.backbone:
            x = block(x)
        return super().forward(list(x), mode)


def train_toy(work_dir: Path, batch_size: int, resume: Path | None = None, **more: object) -> None:
    cfg = make_config(work_dir, max_epochs=3 if resume else 2, evaluate=True)
    cfg.model = dict(type='ToyOfBlocks')
    cfg.train_dataloader.batch_size = batch_size
    cfg.merge_from_dict(more)
    if resume:
        training.set_resume(cfg, str(resume))
    training.train(cfg)


def go_as_two(function: Callable[[], None], log: Path) -> None:
    """Do something as the first of two connected processes; the second is a fork."""
    environ = dict(WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    environ['MASTER_PORT'] = find_port()

    def go(rank: int) -> None:
        own = dict(environ, RANK=str(rank), LOCAL_RANK=str(rank))
        with mock.patch.dict(os.environ, own):
            torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=20))
            try:
                function()
                launch.disconnect()
            finally:
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()

    other = fork(log, go, 1)
    try:
        go(0)
        assert wait(other) == 0, log.read_text()
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)
        raise


def check_alike(one: Path, two: Path) -> None:
    """Weights, buffers and the optimizer's state, as plain tensors."""
    one, two = (load_file(path) for path in (one, two))
    assert two['state_dict'].keys() == one['state_dict'].keys()
    torch.testing.assert_close(two['state_dict'], one['state_dict'])
    assert len(one['optimizer']['state']) == 10
    torch.testing.assert_close(two['optimizer']['state'], one['optimizer']['state'])


def test_two_shares_train_as_a_whole(tmp_path):
    """Of each block too; either goes on with what the other has written.

    So with a group of the optimizer for each parameter, whose states change places: each is then
    shared out by the shape of its own.
    """
    more = dict(model_wrapper_cfg=dict(type='mmdense.FullyShardedModel'))
    more['randomness'] = dict(seed=1, diff_rank_seed=True)  # the first one's weights count
    first, second = (tmp_path / name / 'epoch_2.pth' for name in ('one', 'two'))
    grouped = {'optim_wrapper.paramwise_cfg': dict(bias_lr_mult=2.0)}
    plain = {'optim_wrapper.constructor': 'mmengine.DefaultOptimWrapperConstructor'}
    each = tmp_path / 'each' / 'epoch_2.pth'

    def go() -> None:
        ToyOfBlocks.sizes.clear()
        train_toy(tmp_path / 'two', 2, **more)
        assert ToyOfBlocks.sizes == {12}  # half of it
        train_toy(tmp_path / 'two_on', 2, resume=first, **more)
        train_toy(tmp_path / 'two_each_on', 2, resume=each, **more, **grouped)

    train_toy(tmp_path / 'each', 4, randomness=dict(seed=1), **grouped, **plain)
    train_toy(tmp_path / 'one', 4, randomness=dict(seed=1))
    go_as_two(go, tmp_path / 'log')
    check_alike(first, second)
    train_toy(tmp_path / 'one_on', 4, resume=second)
    check_alike(tmp_path / 'one_on' / 'epoch_3.pth', tmp_path / 'two_on' / 'epoch_3.pth')
    train_toy(tmp_path / 'one_each_on', 4, resume=each, **grouped)
    check_alike(tmp_path / 'one_each_on' / 'epoch_3.pth', tmp_path / 'two_each_on' / 'epoch_3.pth')


def test_a_shared_model_is_used_like_the_model(tmp_path):
    """What it is given and gives; its state is whole and can be loaded, until training begins."""
    torch.manual_seed(0)
    plain = ToyOfBlocks()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    data = dict(inputs=[torch.ones(4), torch.arange(4.0)])
    wanted = plain(data['inputs'])

    def go() -> None:
        model = ToyOfBlocks()
        model.init_weights = lambda: model.load_state_dict(before)
        shared = FullyShardedModel(model)
        for found in (shared.test_step(data), shared.val_step(data), shared(data['inputs'])):
            torch.testing.assert_close(torch.stack(found), torch.stack(wanted))
        torch.testing.assert_close(shared(data['inputs'], mode='loss'), plain(**data, mode='loss'))
        torch.testing.assert_close(shared.state_dict(), {f'module.{k}': before[k] for k in before})
        weight = model.backbone[0].layers[0].weight
        kept = torch.full((6,), 2.0)
        assert share(kept, weight) is kept  # of another shape
        assert share(kept, kept) is kept and share(weight, weight) is weight
        assert torch.equal(gather(share(torch.ones(6, 4), weight)), torch.ones(6, 4))
        assert gather(3) == 3
        doubled = {key: 2 * value for key, value in before.items()}
        shared.module.load_state_dict(doubled)
        torch.testing.assert_close(model.state_dict()['layer.weight'], doubled['layer.weight'])
        ShardedCheckpointHook().before_train(SimpleNamespace(model=shared))
        assert isinstance(model.state_dict()['layer.weight'], DTensor)

    go_as_two(go, tmp_path / 'log')


def test_averages_are_refused():
    """As mmengine copies them; a training without passes."""
    hooks = [ShardedCheckpointHook()]
    hooks[0].before_run(SimpleNamespace(hooks=hooks))
    with pytest.raises(UserError, match=r'averaged weights .* or FullyShardedModel$'):
        hooks[0].before_run(SimpleNamespace(hooks=[*hooks, EMAHook()]))


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
    assert find_blocks(model.backbone) == [first, second, third]  # of a model without one


def test_without_processes():
    with pytest.raises(UserError, match='needs a launcher'):
        FullyShardedModel(nn.Linear(1, 1))


@pytest.mark.slow
def test_averaged_weights_are_refused(place):
    more = SHARED + "\ncustom_hooks = [dict(type='EMAHook')]"
    config = write(place / 'two.py', batch_size=4, more=more)
    with pytest.raises(AssertionError, match='averaged weights'):
        run_in_two(place, TRAIN, config, '--work-dir', 'two')

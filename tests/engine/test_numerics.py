"""No loss or gradient that is NaN or infinite reaches the weights."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from helpers import DIGIT_CONFIGS
from mmengine.config import Config
from mmengine.model import BaseModel, ExponentialMovingAverage, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdense.engine import training
from mmdense.engine.amp import CPUAmpOptimWrapper
from mmdense.engine.numerics import FiniteHook, name_pictures
from mmdense.errors import UserError

INF, NAN = math.inf, math.nan


class Toy(BaseModel):
    """Regression on one number per sample, whose batch norm remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.first = nn.Linear(1, 2)
        self.second = nn.Linear(2, 1)

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> dict:
        x = torch.stack(inputs)[:, None]
        # a square root at 0 has a finite value and an infinite gradient
        steep = (self.first.weight.sum() * 0).sqrt() if (x == -1).any() else 0.0
        y = self.second(self.first(self.norm(x)))
        return dict(loss_a=y.square().mean() + steep, loss_b=self.first.weight.square().mean())


def samples(values: list[float]) -> list[dict]:
    return [
        dict(
            inputs=torch.tensor(float(value)),
            data_samples=BaseDataElement(metainfo=dict(img_path=f'{i}.png')),
        )
        for i, value in enumerate(values)
    ]


class Recorder(FiniteHook):
    """The hook, and the weights as they were after each iteration."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.weights.append(copy_state(runner.model))


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def build_runner(
    values: list[float],
    folder: Path,
    hook: FiniteHook | None = None,
    wrapper: Callable[[Toy], OptimWrapper] | None = None,
    by_epoch: bool = True,
    **kwargs: object,
) -> Runner:
    """Two samples an iteration, a checkpoint after each iteration."""
    torch.manual_seed(0)
    model = Toy()
    make = wrapper or (lambda model: OptimWrapper(sgd(model)))
    return Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=samples(values),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1)
        if by_epoch
        else dict(by_epoch=False, max_iters=len(values) // 2),
        optim_wrapper=make(model),
        custom_hooks=[hook or Recorder()],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False),
            logger=dict(type='LoggerHook', interval=1000),
        ),
        log_level='ERROR',
        experiment_name=f'numerics_{folder.name}',
        **kwargs,
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def amp(model: Toy, monkeypatch: pytest.MonkeyPatch, **scale: object) -> AmpOptimWrapper:
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    scaler = partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    return AmpOptimWrapper(optimizer=sgd(model), loss_scale=dict(scale))


WRAPPERS = {
    'plain': lambda model: OptimWrapper(sgd(model)),
    'clipped': lambda model: OptimWrapper(sgd(model), clip_grad=dict(max_norm=1.0)),
    'clipped by value': lambda model: OptimWrapper(
        sgd(model), clip_grad=dict(type='value', clip_value=1.0)
    ),
    'bfloat16': lambda model: CPUAmpOptimWrapper(sgd(model)),
    'fused': lambda model: OptimWrapper(torch.optim.AdamW(model.parameters(), fused=True)),
}
FAULTS = {
    'NaN': (NAN, ['the loss is not finite', 'loss_a nan', 'loss_b 0.']),
    'infinite': (INF, ['the loss is not finite', 'loss_a nan']),
    'gradient': (-1, ['a gradient is not finite', 'gradients of 1 parameters', 'first.weight']),
}


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('kind', WRAPPERS)
def test_training_stops_before_the_weights_are_touched(kind, fault, by_epoch, tmp_path):
    value, messages = FAULTS[fault]
    hook = Recorder()
    values = [1, 2, 3, 4, 5, value, 7, 8]
    runner = build_runner(values, tmp_path, hook, WRAPPERS[kind], by_epoch)
    before = copy_state(runner.model)
    with pytest.raises(UserError) as error:
        runner.train()
    said = str(error.value)
    at = 'iteration 3 (epoch 1): ' if by_epoch else 'iteration 3: '
    rate = '0.001' if kind == 'fused' else '0.1'
    for message in (at, 'pictures: 4.png, 5.png', f'learning rate {rate};', *messages):
        assert message in said
    assert f'the last checkpoint is {tmp_path}/iter_2.pth' in said and '\n' not in said
    assert len(hook.weights) == 2
    assert not torch.equal(before['first.weight'], hook.weights[-1]['first.weight'])
    for name, weight in runner.model.named_parameters():
        assert torch.equal(weight, hook.weights[-1][name])
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['iter_1.pth', 'iter_2.pth']


def test_good_numbers_pass_and_nothing_is_left_behind(tmp_path):
    runner = build_runner([1, 2, 3, 4], tmp_path)
    plain = {**vars(runner.model)}, {**vars(runner.optim_wrapper)}
    runner.train()
    assert set(vars(runner.model)) == set(plain[0])
    assert 'step' not in vars(runner.optim_wrapper)
    watched = copy_state(runner.model)
    other = build_runner([1, 2, 3, 4], tmp_path / 'other')
    other._hooks = [hook for hook in other._hooks if not isinstance(hook, FiniteHook)]
    other.train()
    for key, value in other.model.state_dict().items():
        assert torch.equal(value, watched[key])


def test_before_any_checkpoint(tmp_path):
    with pytest.raises(UserError, match='there is no checkpoint yet'):
        build_runner([NAN, 2, 3, 4], tmp_path).train()
    assert not list(tmp_path.glob('*.pth'))


def test_large_gradients_are_finite(tmp_path):
    """Though the sum of their squares is not, in float32."""

    def wrap(model: Toy) -> OptimWrapper:
        model.second.weight.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
        return OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-40))

    build_runner([1, 2, 3, 4], tmp_path, None, wrap).train()


def accumulating(model: Toy) -> OptimWrapper:
    return OptimWrapper(sgd(model), accumulative_counts=2)


@pytest.mark.parametrize('bad', [2, 3], ids=['first', 'last'])
def test_accumulated_gradients(bad, tmp_path):
    """The step that would take them is the one that is not made; the bad iteration is named."""
    values = [1, 2, 3, 4, 5, 6, 7, 8]
    values[2 * bad] = NAN
    hook = Recorder()
    runner = build_runner(values, tmp_path, hook, accumulating)
    with pytest.raises(UserError, match=f'iteration 4 .*pictures: {2 * bad}.png'):
        runner.train()
    for name, weight in runner.model.named_parameters():
        assert torch.equal(weight, hook.weights[1][name])


def test_several_optimizers(tmp_path):
    """Each is guarded; what one has stepped before another is refused stays finite."""

    class Twice(Toy):
        def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict:
            for name in ('first', 'second'):
                data['x'] = None
                losses = self(data['inputs'], data['data_samples'], mode='loss')
                if name == 'second':
                    losses['loss_a'] = losses['loss_a'] * (NAN if 3.0 in data['inputs'] else 1)
                total, log_vars = self.parse_losses(losses)
                optim_wrapper[name].update_params(total)
            return log_vars

    def wrap(model: Toy) -> OptimWrapperDict:
        model.__class__ = Twice
        return OptimWrapperDict(
            first=OptimWrapper(sgd(model.first)), second=OptimWrapper(sgd(model.second))
        )

    hook = Recorder()
    runner = build_runner([1, 2, 3, 4], tmp_path, hook, wrap)
    with pytest.raises(UserError, match='iteration 2'):
        runner.train()
    assert torch.equal(runner.model.second.weight, hook.weights[0]['second.weight'])
    assert not torch.equal(runner.model.first.weight, hook.weights[0]['first.weight'])
    assert all(p.isfinite().all() for p in runner.model.parameters())


def test_of_a_model_without_losses_the_gradients_are_looked_at(tmp_path):
    model = nn.Linear(1, 2)
    wrapper, before = OptimWrapper(sgd(model)), copy_state(model)
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, train_loop=None, iter=4, work_dir=str(tmp_path)
    )
    runner.message_hub = SimpleNamespace(get_info=lambda key, default: default)
    hook = FiniteHook()
    hook.before_train(runner)
    wrapper.update_params(model(torch.ones(1)).sum())
    after = copy_state(model)
    assert not torch.equal(after['bias'], before['bias'])
    with pytest.raises(UserError) as error:
        wrapper.update_params(model(torch.full((1,), INF)).sum())
    said = str(error.value)
    assert said.startswith('iteration 5: a gradient is not finite; gradients of 1 parameters are')
    assert 'not, first weight; losses: unknown; learning rate 0.1. The weights' in said
    assert torch.equal(model.bias, after['bias'])


def test_averaged_weights_stay_finite(tmp_path):
    runner = build_runner([1, 2, 3, 4, NAN, 6], tmp_path)
    runner.register_custom_hooks([dict(type='EMAHook')])
    with pytest.raises(UserError, match='iteration 3'):
        runner.train()
    (ema,) = [h.ema_model for h in runner.hooks if hasattr(h, 'ema_model')]
    assert isinstance(ema, ExponentialMovingAverage)
    assert all(p.isfinite().all() for p in ema.parameters())


@pytest.mark.parametrize('value', [NAN, -1], ids=['loss', 'gradient'])
def test_bad_steps_are_skipped_and_counted(value, tmp_path, caplog):
    """Neither weights nor batch statistics keep anything of them; one more than allowed ends it."""
    values = [1, 2, value, 4, 5, 6, value, 8, 9, 10, value, 12]
    hook = Recorder(max_skips=2)
    runner = build_runner(values, tmp_path, hook)
    warned = []
    runner.logger.warning = lambda text, *args: warned.append(text)
    with pytest.raises(UserError, match=r'iteration 6 .*; 2 steps were skipped before\.'):
        runner.train()
    said = [text for text in warned if 'skipped' in text]
    assert [text[:22] for text in said] == ['step skipped (1 of 2):', 'step skipped (2 of 2):']
    assert 'iteration 2' in said[0] and 'pictures: 2.png, 3.png' in said[0]
    for i in (1, 3):
        for key, kept in hook.weights[i].items():
            if 'num_batches' not in key:
                assert torch.equal(kept, hook.weights[i - 1][key]), key
    assert all(v.isfinite().all() for state in hook.weights for v in state.values())
    assert not torch.equal(
        hook.weights[2]['norm.running_mean'], hook.weights[1]['norm.running_mean']
    )


def test_skips_are_counted_over_a_resume(tmp_path):
    values = [1, 2, NAN, 4, 5, 6]
    runner = build_runner(values, tmp_path, Recorder(max_skips=1))
    runner.train()
    file = tmp_path / 'iter_3.pth'
    resumed = build_runner(
        values, tmp_path / 'more', Recorder(max_skips=1), load_from=str(file), resume=True
    )
    resumed.train_loop._max_epochs = 2
    with pytest.raises(UserError, match=r'iteration 5 .*1 steps were skipped before'):
        resumed.train()


class TestLossScale:
    """Under a loss scale infinite gradients are skipped by the scaler; a loss is ours."""

    def test_an_overflow_passes(self, tmp_path, monkeypatch):
        hook = Recorder()
        make = partial(amp, monkeypatch=monkeypatch)
        runner = build_runner([1, 2, 3, -1, 5, 6], tmp_path, hook, make)
        runner.train()
        first, second, third = hook.weights
        assert torch.equal(first['first.weight'], second['first.weight'])
        assert not torch.equal(second['first.weight'], third['first.weight'])
        assert runner.optim_wrapper.loss_scaler.get_scale() == 2**15

    def test_a_loss_does_not(self, tmp_path, monkeypatch):
        make = partial(amp, monkeypatch=monkeypatch)
        with pytest.raises(UserError, match=r'iteration 2 .*the loss is not finite'):
            build_runner([1, 2, 3, NAN, 5, 6], tmp_path, None, make).train()

    def test_overflow_after_overflow(self, tmp_path, monkeypatch):
        """Not when a good step lies between; skipping it is no help."""
        make = partial(amp, monkeypatch=monkeypatch)
        values = [1, -1, 1, -1, 1, 1, 1, -1, 1, -1, 1, -1]
        hook = Recorder(max_overflows=3, max_skips=9)
        with pytest.raises(UserError, match=r'iteration 6 .*3 steps on end had infinite gradients'):
            build_runner(values, tmp_path, hook, make).train()
        assert len(hook.weights) == 5

    def test_without_a_scale_gradients_are_ours(self, tmp_path, monkeypatch):
        make = partial(amp, monkeypatch=monkeypatch, enabled=False)
        with pytest.raises(UserError, match='a gradient is not finite'):
            build_runner([1, -1], tmp_path, None, make).train()


@pytest.mark.parametrize(
    'batch, names',
    [
        (None, ''),
        (dict(inputs=torch.zeros(2)), ''),
        (dict(data_samples=[BaseDataElement(metainfo=dict(img_path='a', img_id=3))]), 'a'),
        (dict(data_samples=[BaseDataElement(metainfo=dict(img_id=3))]), '3'),
        (dict(data_samples=[BaseDataElement(metainfo=dict(sample_idx=0))]), '0'),
        (dict(data_samples=[BaseDataElement()]), '?'),
        (
            dict(data_samples=dict(sup=[BaseDataElement(metainfo=dict(img_path='b'))])),
            'b',
        ),
        (
            dict(data_samples=[BaseDataElement(metainfo=dict(img_id=i)) for i in range(10)]),
            '0, 1, 2, 3, 4, 5, 6, 7, and 2 more',
        ),
    ],
)
def test_names_of_pictures(batch, names):
    assert name_pictures(batch) == names


class Listed(Toy):
    """Its total can be bad while its gradients are good."""

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> dict:
        losses = super().forward([torch.ones(()) for _ in inputs], data_samples, mode)
        return dict(losses, loss_c=sum(inputs) * 1.0)


def train_in_a_process(rank: int, folder: str, max_skips: int, queue: mp.Queue) -> None:
    torch.set_num_threads(1)
    address = f'file://{folder}/meeting'
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)

    def wrap(model: Toy) -> OptimWrapper:
        model.__class__ = Listed
        return OptimWrapper(sgd(model))

    # the second process meets infinity in its second iteration
    values = [1, 1, 1, 1, 1, 1, 1, INF, 1, 1, 1, 1]
    hook = Recorder(max_skips=max_skips)
    runner = build_runner(values, Path(folder), hook, wrap)
    runner.model = MMDistributedDataParallel(runner.model, broadcast_buffers=False)
    said = ''
    try:
        runner.train()
    except UserError as error:
        said = str(error)
    except SystemExit as error:
        said = f'exit {error.code}'
    finally:
        weights = runner.model.module.first.weight.detach().flatten().tolist()
        queue.put((rank, said, len(hook.weights), weights))
        torch.distributed.barrier()


@pytest.mark.parametrize('max_skips', [0, 1])
def test_two_processes_end_or_skip_together(max_skips, tmp_path):
    """Though only one of them has met the infinite loss, and their gradients are good."""
    context = mp.get_context('fork')
    queue = context.SimpleQueue()
    args = (str(tmp_path), max_skips, queue)
    processes = [
        context.Process(target=train_in_a_process, args=(i, *args), daemon=True) for i in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = sorted(queue.get() for _ in processes)
    assert first[2:] == second[2:]  # iterations and weights
    if max_skips:
        assert (first[1], second[1], first[2]) == ('', '', 3)
    else:
        assert second[1] == 'exit 1' and first[2] == 1
        for message in ('iteration 2', 'loss_c inf', 'pictures: 5.png, 7.png'):
            assert message in first[1]


def test_every_training_has_the_hook_once(place, monkeypatch):
    """Added by the tools; a config's own, with its settings, stands in its place."""
    seen = []
    monkeypatch.setattr(
        training, 'build_runner', lambda cfg: seen.append(cfg) or type('R', (), dict(train=list))()
    )
    training.train(Config(dict(work_dir='run')))
    mine = dict(type='mmdense.FiniteHook', max_skips=5)
    training.train(Config(dict(work_dir='run', custom_hooks=[mine])))
    for cfg, number in zip(seen, (None, 5)):
        hooks = [h for h in cfg.custom_hooks if h['type'] == 'mmdense.FiniteHook']
        assert [h.get('max_skips') for h in hooks] == [number]


@pytest.mark.slow
@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_a_learning_rate_that_explodes(scope, place, run_tool):
    """A real model of each toolbox diverges; the tool ends with one line that says on what."""
    code, _, err = run_tool(
        'train.py',
        DIGIT_CONFIGS[scope],
        '--cfg-options',
        'model.backbone.init_cfg=None',
        'train_dataloader.batch_size=2',
        'optim_wrapper.optimizer.lr=1e30',
        'param_scheduler=None',
        'train_cfg.max_epochs=9',
    )
    (line,) = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == 1 and 'Traceback' not in err
    for message in ('not finite', 'learning rate', 'pictures: data/digit_scenes/', 'no checkpoint'):
        assert message in line

"""Benchmarks measure what they say; how fast is not tested."""

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config

from mmdense.inference.benchmark import Case, Timing, measure, measure_peak, prepare

DIGITS = ROOT / 'configs' / 'digits'
NAMES = ('paca_digits', 'mask_rcnn_paca_digits', 'upernet_paca_digits')
CPU = torch.device('cpu')


def test_peak_is_what_lives_at_once():
    def step() -> None:
        a = torch.zeros(2**18)  # 1 MiB each
        b = a + 1
        del a
        b + 1  # two of them again

    assert measure_peak(step, CPU) == pytest.approx(2 * 2**20, rel=0.01)


def test_steps_take_turns():
    """Warm-up and memory one by one, then round by round."""
    calls = []
    steps = [lambda i=i: calls.append(i) for i in range(3)]
    passes = list(measure(steps, 2, CPU, warmup=2, rounds=3))
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2, *3 * [0, 1, 2]]
    assert len(passes) == len(calls)
    assert all(len(timing.seconds) == 3 and timing.batch_size == 2 for timing in passes[-1])


def test_figures():
    slow, fast = Timing(2, [1.0, 2.0, 4.0]), Timing(4, [0.5, 1.0, 1.0])
    assert slow.images_per_second == 1 and fast.images_per_second == 4
    assert fast.speed_relative_to(slow) == 4  # median of 4, 4, 8
    assert slow.speed_relative_to(slow) == 1
    assert fast.percentile(50) == 1 and slow.percentile(100) == 4
    bursts = Timing(8, [0.1, 0.1, 7.8], loaded=20)  # the last batch is a small one
    assert bursts.images_per_second == 2.5 and bursts.speed_relative_to(slow) == 2.5


@pytest.mark.parametrize('mode', ['inference', 'train'])
@pytest.mark.parametrize('part', ['backbone', 'model'])
@pytest.mark.parametrize('name', NAMES)
def test_every_part_runs(name, part, mode, monkeypatch):
    """Training gives the backbone gradients, which are gone after the step; inference none."""
    cfg = Config.fromfile(DIGITS / f'{name}.py')
    strengths = []

    def zero_grad(module: torch.nn.Module) -> None:
        grads = [p.grad for p in module.backbone.parameters() if p.grad is not None]
        strengths.append(sum(grad.abs().sum().item() for grad in grads))
        clear(module)

    clear = torch.nn.Module.zero_grad
    monkeypatch.setattr(torch.nn.Module, 'zero_grad', zero_grad)
    step = prepare(Case(name, mode, part, 'fp32', 'contiguous', 'eager'), cfg, (64, 96), 2, CPU)
    step()
    step()
    assert len(strengths) == (2 if mode == 'train' else 0)
    assert all(strengths)


@pytest.mark.parametrize('mode', ['inference', 'train'])
def test_shape_is_what_the_backbone_sees(mode):
    """Also in a segmentor's training, which pads to the size in the config."""
    cfg = Config.fromfile(DIGITS / 'upernet_paca_digits.py')
    shapes = []

    def watch(module: torch.nn.Module, args: tuple) -> None:
        if hasattr(module, 'out_indices'):
            shapes.append(args[0].shape)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        prepare(Case('', mode, 'model', 'fp32', 'contiguous', 'eager'), cfg, (64, 96), 2, CPU)()
    finally:
        hook.remove()
    assert shapes == [(2, 3, 64, 96)]
    assert tuple(cfg.model.data_preprocessor.size) == cfg.crop_size  # the config is as it was


def test_a_detector_keeps_regions():
    """With random weights too, suppression and mask head have as much to do as they may."""
    cfg = Config.fromfile(DIGITS / 'mask_rcnn_paca_digits.py')
    seen = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: (
            seen.append(len(args[0])) if type(module).__name__ == 'FCNMaskHead' else None
        )
    )
    try:
        step = prepare(
            Case('', 'inference', 'model', 'fp32', 'contiguous', 'eager'), cfg, (64, 96), 1, CPU
        )
        step()
    finally:
        hook.remove()
    assert seen == [cfg.model.test_cfg.rcnn.max_per_img]


@pytest.mark.slow
def test_models_of_one_class_compile_for_their_own_size(monkeypatch):
    """They share PyTorch's cache: neither dynamic shapes nor eager execution may come of that."""
    cfg = Config.fromfile(DIGITS / 'paca_digits.py')
    case = Case('', 'inference', 'backbone', 'fp32', 'contiguous', 'compiled')
    graphs = []

    def compiler(graph: torch.fx.GraphModule, inputs: list) -> object:
        graphs.append([t.shape for t in inputs if t.dim() == 4 and t.shape[:2] == (1, 3)][-1])
        assert not any(isinstance(side, torch.SymInt) for side in graphs[-1])
        return graph

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, 'compile', lambda self, **kw: compile_(self, backend=compiler, **kw)
    )
    torch._dynamo.reset()
    before = 2  # by default more, which takes longer
    shapes = [(64, 64 + 32 * i) for i in range(before + 2)]
    steps = [prepare(case, cfg, shape, 1, CPU) for shape in shapes]
    with torch._dynamo.config.patch(recompile_limit=before):
        list(measure(steps, 1, CPU, warmup=1, rounds=1))
        assert torch._dynamo.config.recompile_limit == before
    assert graphs == [(1, 3, *shape) for shape in shapes]
    torch._dynamo.reset()


def test_precision_and_memory_format():
    cfg = Config.fromfile(DIGITS / 'paca_digits.py')
    seen = {}

    def watch(module: torch.nn.Module, args: tuple, out: object) -> None:
        if isinstance(module, torch.nn.Conv2d):
            channels_last = args[0].is_contiguous(memory_format=torch.channels_last)
            weight = module.weight.is_contiguous(memory_format=torch.channels_last)
            seen.setdefault('first', (out.dtype, channels_last and weight))

    for precision, memory_format, expected in (
        ('fp32', 'contiguous', (torch.float32, False)),
        ('bf16', 'channels_last', (torch.bfloat16, True)),
    ):
        seen.clear()
        hook = torch.nn.modules.module.register_module_forward_hook(watch)
        try:
            case = Case('', 'inference', 'model', precision, memory_format, 'eager')
            prepare(case, cfg, (64, 64), 1, CPU)()
        finally:
            hook.remove()
        assert seen['first'] == expected

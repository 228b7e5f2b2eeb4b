"""A model that is made quick stays the same function."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    CONFIGS,
    DIGIT_CONFIGS,
    TINY,
    assert_near,
    build_in,
    check_fails,
    float32_tolerance,
)
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import get_priority
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdense.engine.building import load_model
from mmdense.engine.data import build_pipeline
from mmdense.errors import UserError
from mmdense.inference import optimize as room
from mmdense.inference.export_detector import compare_detections
from mmdense.inference.optimize import fold_batch_norms, optimize
from mmdense.inference.predict import load_image, predict
from mmdense.serialization.conversion import convert


class Whole(nn.Module):
    """What has a backbone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = build_in('mmdense', TINY[name])


def shake(model: nn.Module) -> nn.Module:
    """Batch norms that do something, as after training."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.parametrize('name', TINY)
def test_backbones(name):
    model = shake(Whole(name))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    quick, folded, error = optimize(model)
    assert error < 1e-5 and folded == count_norms(model) - count_norms(quick)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not any(p.requires_grad for p in quick.parameters()) and not quick.training
    x = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        for a, b in zip(model.backbone(x), quick.backbone(x)):
            assert (a - b).abs().max() <= 1e-5 * a.abs().max()


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('name', ['GroupMixFormer', 'FCViT'])
def test_backbones_alone(name, precision):
    """What comes out is float32, too."""
    backbone = shake(build_in('mmdense', TINY[name]))
    quick, folded, _ = optimize(backbone, precision)
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for a, b in zip(backbone(x), quick(x)):
            assert a.dtype == b.dtype == torch.float32
            near = room.TOLERANCES[precision]
            assert (a - b).abs().max() <= near * a.abs().max()
    assert folded > 0 and (torch.bfloat16 in {p.dtype for p in quick.parameters()}) == (
        precision == 'bf16'
    )


def test_which_norms_are_left():
    """GroupMixFormer has one in each block that no convolution is before."""
    model = Whole('GroupMixFormer')
    blocks = sum(len(stage.blocks) for stage in model.backbone.stages)
    assert count_norms(optimize(model).model) == blocks
    assert count_norms(Whole('FCViT')) == 4 and count_norms(optimize(Whole('FCViT')).model) == 0


def test_timm_networks_take_their_form_for_inference():
    """RepVGG's three branches become one convolution."""
    model = nn.Module()
    model.backbone = build_in('mmdense', dict(type='mmdense.Timm', model_name='repvgg_a0'))
    shake(model)
    quick, _, error = optimize(model)
    assert error < 1e-5 and count_norms(model) > 20 and count_norms(quick) == 0


@pytest.mark.slow
def test_export(run_tool, untrained, tmp_path):
    """The file has no batch norm left."""
    args = [DIGIT_CONFIGS['mmseg'], untrained('mmseg'), tmp_path / 'a.pt2']
    code, _, err = run_tool('export.py', *args, '--optimize')
    assert code == 0, err
    assert 'batch_norm' not in str(torch.export.load(tmp_path / 'a.pt2').graph)


@pytest.mark.slow
@pytest.mark.parametrize('family', ['paca', 'groupmixformer', 'fcvit', 'msf'])
def test_published_logits(family, smallest):
    """The originals' figures hold for the smallest published network of a family."""
    ref, published = smallest(family)
    conversion = convert(published)
    cfg = Config.fromfile(CONFIGS.parent / conversion.config)
    model = build_in('mmpretrain', cfg.model)
    model.load_state_dict(conversion.state_dict)
    spec = ref.manifest['classification']
    with torch.no_grad():
        found = optimize(model).model(ref.image(spec['input'], torch.float32), mode='tensor')
    assert_near(found, ref.vectors['logits'], float32_tolerance(spec))


def test_modules_of_the_toolboxes():
    norm = dict(norm_cfg=dict(type='BN'))
    model = nn.ModuleDict(
        dict(
            usual=ConvModule(3, 4, 3, **norm),
            norm_first=ConvModule(3, 4, 3, order=('norm', 'conv', 'act'), **norm),
            group_norm=ConvModule(3, 4, 3, norm_cfg=dict(type='GN', num_groups=2)),
            without=ConvModule(3, 4, 3),
        )
    )
    shake(model)
    x = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        wanted = {name: module(x) for name, module in model.items()}
        assert fold_batch_norms(model) == 1
        for name, module in model.items():
            torch.testing.assert_close(module(x), wanted[name])


def test_what_is_used_twice_or_listened_to_stays():
    conv = nn.Conv2d(3, 3, 1)
    shared = nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3))
    watched = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    watched[0].register_forward_hook(lambda *_: None)
    of_batch = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU()
    )
    nested = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(nn.BatchNorm2d(3)))
    active = nn.Sequential(nn.Conv2d(3, 3, 1), BatchNormAct2d(3))  # with a ReLU in it
    told = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    told[0].register_forward_pre_hook(lambda *_: None)  # as spectral norm does
    model = shake(nn.ModuleList([shared, watched, of_batch, nested, active, told]))
    x = torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        wanted = [module(x) for module in model]
        assert fold_batch_norms(model) == 1
        for module, want in zip(model, wanted):
            torch.testing.assert_close(module(x), want)


def test_a_model_that_changes_is_refused(monkeypatch):
    model = shake(Whole('FCViT'))
    norms = count_norms(model)
    monkeypatch.setattr(room, 'fuse_conv_bn_eval', lambda conv, norm: conv)
    with pytest.raises(UserError, match=r'optimized in fp32, the maps differ by .* of their'):
        optimize(model)
    assert count_norms(model) == norms


def test_a_last_map_without_numbers_is_refused(monkeypatch):
    find_maps, calls = room._find_maps, []

    def find(*args: object) -> list[torch.Tensor]:
        maps = find_maps(*args)
        calls.append(args)
        return [*maps[:-1], maps[-1] * float('nan')] if len(calls) > len(room.CHECKED) else maps

    monkeypatch.setattr(room, '_find_maps', find)
    with pytest.raises(UserError, match='the maps differ by nan of their values'):
        optimize(Whole('FCViT'))


def test_images_of_one_size_are_refused():
    class Fixed(nn.Conv2d):
        def forward(self, image):
            assert image.shape[2] == 224, "Input height doesn't match model"
            return (super().forward(image),)

    model = nn.Module()
    model.backbone = Fixed(3, 4, 1)
    with pytest.raises(UserError, match="any size is optimized: Input height doesn't match"):
        optimize(model)


@pytest.mark.parametrize('precision, warned', [('fp32', []), ('bf16', ['cpu'])])
def test_who_is_warned_of_half_the_bits(precision, warned, monkeypatch):
    devices = []
    monkeypatch.setattr(room, 'warn_of_emulation', devices.append)
    optimize(Whole('FCViT').backbone, precision)
    assert devices == warned


@pytest.mark.slow
def test_an_exported_file_is_compared_with_the_model_itself(
    run_tool, untrained, tmp_path, monkeypatch
):
    def spoil(model: nn.Module, **kwargs: object) -> room.Optimized:
        quick = optimize(model, **kwargs)
        nn.init.normal_(quick.model.head.fc.weight)
        return quick

    monkeypatch.setattr(room, 'optimize', spoil)
    out = tmp_path / 'model.onnx'
    arguments = (DIGIT_CONFIGS['mmpretrain'], untrained('mmpretrain'), out, '--optimize')
    check_fails(run_tool('export.py', *arguments), 'the file differs from the model; not kept')
    assert not out.exists()


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_predictions(scope, precision, untrained, pictures):
    """Of whole models of the three toolboxes, also in half the bits."""
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    model = load_model(cfg, str(untrained(scope)))
    batch = load_image(build_pipeline(cfg), next(pictures.rglob('*.png')))
    quick, _, error = optimize(model, precision)
    assert 0 <= error <= room.TOLERANCES[precision]
    halves = {p.dtype for p in quick.backbone.parameters()}
    assert (room.DTYPES[precision] in halves) == (precision != 'fp32')
    a, b = predict(model, batch), predict(quick, batch)
    if scope == 'mmpretrain':
        near = 2e-2 if precision != 'fp32' else 1e-5
        torch.testing.assert_close(b.pred_score.float(), a.pred_score, rtol=0, atol=near)
    elif scope == 'mmseg':
        same = (a.pred_sem_seg.data == b.pred_sem_seg.data).float().mean()
        assert same > (0.9 if precision != 'fp32' else 0.999)
    else:
        assert a.pred_instances.bboxes.shape[1] == b.pred_instances.bboxes.shape[1] == 4
        assert b.pred_instances.bboxes.isfinite().all()
        assert b.pred_instances.bboxes.dtype == b.pred_instances.scores.dtype == torch.float32
        if precision == 'fp32':
            found = [b.pred_instances[key] for key in ('bboxes', 'labels', 'scores')]
            difference = compare_detections(found, a.pred_instances, 0.5)
            assert len(found[0]) > 5 and difference.missing == 0
            assert difference.boxes <= 1e-2 and difference.scores <= 1e-4


FEW = ['--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.dataset.indices=6']


@pytest.mark.parametrize(
    'scope, flags',
    [
        ('mmpretrain', []),
        ('mmdet', []),
        ('mmseg', []),
        ('mmpretrain', ['--tta']),
        ('mmseg', ['--tile', 96]),
        ('mmdet', ['--precision', 'bf16']),
        ('mmseg', ['--precision', 'bf16']),
    ],
)
def test_testing(scope, flags, place, untrained, run_tool):
    """The metrics of the model itself, also within what wraps it."""
    found = {}
    is_half = '--precision' in flags
    quick = ['--optimize', *(flags if is_half else [])]
    flags = [] if is_half else flags
    for name, more in dict(plain=[], quick=quick).items():
        command = [DIGIT_CONFIGS[scope], untrained(scope), '--work-dir', name, *flags, *more]
        code, _, err = run_tool('test.py', *command, *FEW)
        assert code == 0, err[-3000:]
        metrics = json.loads(next(Path(name).glob('*/*.json')).read_text())
        found[name] = {k: v for k, v in metrics.items() if k not in ('time', 'data_time')}
        (log,) = Path(name).glob('*/*.log')
        assert ('batch norms folded' in log.read_text()) == bool(more)
    percent = 1 if scope == 'mmdet' else 100
    assert found['quick'] == pytest.approx(
        found['plain'], abs=(5e-3 if is_half else 2e-4) * percent
    )


def test_averaged_weights_are_what_is_optimized(place, untrained):
    """Those with which mmengine's hook tests, and the model is itself again at the end."""
    cfg = Config.fromfile(DIGIT_CONFIGS['mmpretrain'])
    model = load_model(cfg, str(untrained('mmpretrain')))
    runner = SimpleNamespace(model=model, logger=MMLogger.get_current_instance())
    hook = HOOKS.build(dict(type='mmdense.OptimizeHook'))
    assert get_priority(hook.priority) > get_priority(EMAHook.priority)
    nn.init.constant_(model.head.fc.bias, 7.0)
    hook.before_test_epoch(runner)
    assert runner.model is not model and (runner.model.head.fc.bias == 7).all()
    assert not any(p.requires_grad for p in runner.model.parameters())
    hook.after_test_epoch(runner)
    assert runner.model is model


@pytest.mark.parametrize(
    'name, programs',
    [
        pytest.param('PaCaViT', 3, marks=pytest.mark.slow),
        pytest.param('GroupMixFormer', 1, marks=pytest.mark.slow),
        pytest.param('FCViT', 2, marks=pytest.mark.slow),
        ('MSFViT', 1),
    ],
)
def test_compiled_once_for_all_sizes(name, programs):
    """A hundred of them."""
    torch._dynamo.reset()
    model = Whole(name)
    quick = optimize(model, execution='compiled').model
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        compiled.append(graph)
        return graph.forward

    quick.backbone.compile(dynamic=True, backend=backend)
    with torch.no_grad():
        for i in range(100):
            x = torch.randn(1, 3, 64 + 7 * i % 97, 232 - 5 * i % 101)
            for a, b in zip(model.backbone(x), quick.backbone(x)):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(compiled) <= programs
    torch._dynamo.reset()


def test_tool(run_tool, untrained, pictures, tmp_path):
    config, out = DIGIT_CONFIGS['mmpretrain'], tmp_path / 'out'
    args = [config, untrained('mmpretrain'), pictures, '--device', 'cpu', '--out-dir']
    assert run_tool('predict.py', *args, out)[0] == 0
    code, said, err = run_tool('predict.py', *args, tmp_path / 'quick', '--optimize')
    assert code == 0 and 'batch norms folded, maps within' in said, err
    paths = [path.relative_to(out) for path in out.rglob('*.json')]
    assert paths
    for path in paths:
        a, b = (json.loads((tmp_path / folder / path).read_text()) for folder in ('out', 'quick'))
        assert a['labels'] == b['labels'] and a['classes'] == b['classes']
        assert a['scores'] == pytest.approx(b['scores'], rel=1e-4)
    code, _, err = run_tool('predict.py', *args, out, '--precision', 'bf16')
    assert code == 2 and 'go with --optimize' in err

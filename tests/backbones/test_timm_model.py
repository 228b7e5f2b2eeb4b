"""timm's models as backbones: their own maps, at four strides, whatever they are."""

import pytest
import timm
import torch
from helpers import check_fails
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdense.backbones.timm_model import STRIDES, Timm
from mmdense.engine.checks import check_pretrained
from mmdense.engine.optim import LayerDecayOptimWrapperConstructor
from mmdense.errors import UserError
from mmdense.inference.flops import measure
from mmdense.inference.visualize import look

SMALL_SWIN = dict(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1), window_size=4)
SMALL_VIT = dict(embed_dim=16, depth=4, num_heads=2)
# timm's names, of each kind one, with options that make them small.
TINY = {
    'test_resnet': {},
    'test_convnext': {},
    'test_efficientnet': {},
    'mobilenetv3_small_050': {},
    'swin_tiny_patch4_window7_224': SMALL_SWIN,
    'vit_small_patch16_dinov3': SMALL_VIT,
    'vit_tiny_patch16_224': SMALL_VIT,
    'vit_small_patch8_224': SMALL_VIT,
    'vit_small_patch14_dinov2': dict(SMALL_VIT, patch_size=16),
}
VITS = [name for name in TINY if name.startswith('vit')]
ANY_SIZE = {'swin_tiny_patch4_window7_224': dict(dynamic_img_size=True)}  # as timm's user asks it


def build(name: str, **options: object) -> Timm:
    """A network of ``TINY``, always with the same weights."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type='mmdense.Timm', model_name=name, **{**TINY[name], **options}))
    model.init_weights()
    return model


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.fixture
def file(name, tmp_path):
    """Weights of the whole model, as timm writes them."""
    torch.manual_seed(1)
    model = timm.create_model(name, **TINY[name])
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    return str(tmp_path / 'weights.pth')


@pytest.mark.parametrize('size', [(64, 96), (33, 47), (100, 161)], ids=str)
def test_four_maps_of_any_image(name, size):
    model = build(name).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, *size))
    assert [info['reduction'] for info in model.feature_info] == list(STRIDES)
    for feature, info, stride in zip(maps, model.feature_info, STRIDES, strict=True):
        assert feature.shape == (2, info['num_chs'], -(-size[0] // stride), -(-size[1] // stride))
        assert feature.isfinite().all()
        assert isinstance(model.get_submodule(info['module']), nn.Module)


def test_maps_are_timms_own(name, file):
    """Those of ``features_only``, the last of each stride; of a transformer, before the pyramid."""
    model = build(name, pretrained=file).eval()
    options = dict(TINY[name], **ANY_SIZE.get(name, {}))
    if name in VITS:
        options.update(out_indices=(0, 1, 2, 3), dynamic_img_size=True)
    overlay = dict(file=file)
    own = timm.create_model(
        name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **options
    ).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, maps = model(x), own(x)
        if name in VITS:
            maps = [part(feature) for part, feature in zip(model.pyramid, maps, strict=True)]
        else:
            maps = dict(zip(own.feature_info.reduction(), maps))
            maps = [maps[stride] for stride in STRIDES]
            if name in ANY_SIZE:
                maps = [feature.permute(0, 3, 1, 2) for feature in maps]
    for a, b in zip(found, maps, strict=True):
        torch.testing.assert_close(a, b)


def test_out_indices(name):
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = build(name).eval()(x)
        model = build(name, out_indices=[-1, 1]).eval()
        last, second = model(x)
        assert last.shape == maps[3].shape and second.shape == maps[1].shape
        if name not in VITS:  # whose pyramid draws other weights
            torch.testing.assert_close(last, maps[3])
            torch.testing.assert_close(second, maps[1])
    with pytest.raises(ValueError, match='out_indices'):
        build(name, out_indices=(4,))


def test_every_parameter_gets_a_gradient(name):
    """Or DistributedDataParallel would wait for it; so nothing is left that serves other maps."""
    for out_indices in ((0, 1, 2, 3), (1, 2), (0,)):
        model = build(name, out_indices=out_indices).train()
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        without = [key for key, p in model.named_parameters() if p.grad is None]
        assert not without


def test_frozen_stages(name):
    """The stem and the first stages: no gradient, and batch norms of theirs do not learn."""
    for frozen_stages in (0, 2):
        model = build(name, frozen_stages=frozen_stages, drop_path_rate=0.1).train()
        groups = model.coarse_groups
        frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {f'model.{k}' for k, group in groups.items() if group <= frozen_stages}
        assert frozen and len(frozen) < len(list(model.parameters()))
        before = {k: b.clone() for k, b in model.named_buffers()}
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        assert all((p.grad is None) == (k in frozen) for k, p in model.named_parameters())
        for key, buffer in model.named_buffers():
            norm = f'{key.rpartition(".")[0]}.weight'
            if key.endswith('running_mean'):
                assert torch.equal(buffer, before[key]) == (norm in frozen), key
    for wrong in (max(groups.values()) + 1, -2):
        with pytest.raises(ValueError, match='frozen_stages'):
            build(name, frozen_stages=wrong)


def test_norm_eval(name):
    model = build(name, norm_eval=True).train()
    assert model.training and model.model.training
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert not any(norm.training for norm in norms)
    assert bool(norms) == any(isinstance(m, _BatchNorm) for m in build(name).modules())
    assert all(norm.training for norm in build(name).train().modules())


def test_checkpointing_changes_nothing(name):
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    for with_cp in (False, True):
        model = build(name, with_cp=with_cp).train()
        assert any(getattr(m, 'grad_checkpointing', False) for m in model.modules()) == with_cp
        sum(m.square().mean() for m in model(x)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_channels_and_stochastic_depth(name):
    model = build(name, in_channels=5, drop_path_rate=0.3)
    assert len(model(torch.randn(2, 5, 64, 64))) == 4
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == 'DropPath']
    rates += [m.drop_path_rate for m in model.modules() if hasattr(m, 'drop_path_rate')]
    assert name == 'mobilenetv3_small_050' or max(rates) > 0.1


def test_layer_depths(name):
    """Rising from the stem; the pyramid and heads have the last."""
    model = build(name)
    depths = {}
    for key, _ in model.named_parameters():
        depths[key], number = model.get_layer_depth(f'backbone.{key}', 'backbone.')
    model_depths = [depth for key, depth in depths.items() if key.startswith('model.')]
    assert min(model_depths) == 0 and max(model_depths) == number - 2 >= 4
    stem = next(iter(model.model.state_dict()))
    assert depths[f'model.{stem}'] == 0
    assert all(d == number - 1 for key, d in depths.items() if key.startswith('pyramid.'))
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (number - 1, number)
    infos = [info['module'] for info in model.feature_info]
    stages = [max(d for k, d in depths.items() if k.startswith(f'{module}.')) for module in infos]
    assert stages == sorted(set(stages))


class Segmentor(BaseModel):
    """What has a backbone, as the toolboxes' models have."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.backbone(inputs)


def test_layer_wise_learning_rates(name):
    model = Segmentor(build(name))
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )(model)
    rates = {
        id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']
    }
    assert rates[id(model.head.weight)] == 1
    stem = next(iter(model.backbone.model.parameters()))
    _, number = model.backbone.get_layer_depth('x')
    assert rates[id(stem)] == pytest.approx(0.5 ** (number - 1))


def test_a_training_keeps_pretrained_weights(name, file):
    """mmengine initializes a whole model's parts when a training begins."""
    model = Segmentor(MODELS.build(dict(type='mmdense.Timm', model_name=name, **TINY[name])))
    model.backbone.pretrained = file
    model.init_weights()
    model.init_weights()
    weights = torch.load(file)
    for key, value in model.backbone.model.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_checkpoints_of_this_package(tmp_path):
    """``init_cfg`` loads them strictly, as for every backbone."""
    one = build('test_convnext')
    nn.init.normal_(one.model.stem[0].weight)
    torch.save({f'backbone.{k}': v for k, v in one.state_dict().items()}, tmp_path / 'own.pth')
    source = dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth'), prefix='backbone.')
    two = build('test_convnext', init_cfg=source)
    assert torch.equal(one.model.stem[0].weight, two.model.stem[0].weight)
    with pytest.raises(UserError, match='does not hold this Timm'):
        build('test_resnet', init_cfg=source)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no weights of test_vit4 from timm's.*random"):
        Timm('test_vit4', pretrained=True).init_weights()
    path = tmp_path / 'none.pth'
    lost = Timm('test_convnext', pretrained=str(path))
    for check in (lost.init_weights, lambda: check_pretrained(nn.Sequential(lost))):
        with pytest.raises(UserError, match=r"pretrained='.*none.pth' is no file"):
            check()
    torch.save(timm.create_model('test_resnet').state_dict(), path)
    with pytest.raises(UserError, match=r'no weights of test_convnext from .*KeyError'):
        lost.init_weights()
    state = timm.create_model('test_convnext').state_dict()
    state['stem.0.bias'][0] = float('nan')
    torch.save(state, path)
    with pytest.raises(UserError, match='hold NaN'):
        lost.init_weights()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    offline = Timm('test_convnext.r160_in1k', pretrained=True)
    with pytest.raises(UserError, match=r'no weights of test_convnext\.r160_in1k from timm'):
        offline.init_weights()


def test_a_classifier_with_other_classes(tmp_path):
    state = timm.create_model('test_convnext', num_classes=7).state_dict()
    torch.save(state, tmp_path / 'seven.pth')
    source = str(tmp_path / 'seven.pth')
    model = build('test_convnext', pretrained=source, num_classes=7)
    assert torch.equal(model.model.stem[0].weight, state['stem.0.weight'])
    with pytest.raises(UserError, match=r'size mismatch for head\.fc\.weight'):
        build('test_convnext', pretrained=source)


@pytest.mark.parametrize(
    'name, message',
    [
        ('test_convnet', "timm has no model 'test_convnet'; did you mean test_convnext?"),
        ('test_convnext.mine', "timm's test_convnext has no weights 'mine', but r160_in1k"),
        ('vit_small_patch14_dinov2', 'maps of stride 14.*give the backbone patch_size=16'),
        ('levit_128', 'maps of strides 16, 32, 64, not 4, 8, 16 and 32: take a model'),
        ('beit_base_patch16_224', r'of one size alone: take another model, or .* img_size='),
    ],
)
def test_models_that_do_not_fit(name, message):
    with torch.device('meta'), pytest.raises(UserError, match=message):
        Timm(name)


def test_models_without_groups():
    with torch.device('meta'):
        model = Timm('poolformer_s12')
    for ask in (
        lambda: model.get_layer_depth('x'),
        lambda: Timm('poolformer_s12', frozen_stages=1),
    ):
        with pytest.raises(UserError, match='poolformer_s12 has no group_matcher'):
            ask()


def test_images_of_one_size():
    with torch.device('meta'):
        model = Timm('beit_base_patch16_224', img_size=(64, 96))
        assert len(model(torch.empty(1, 3, 64, 96))) == 4


@pytest.mark.parametrize('name', ['test_convnext', 'vit_small_patch16_dinov3'])
def test_feature_views(name):
    """Pages of tools/visualize.py: a page for each map."""
    model = build(name, out_indices=(1, 3)).eval()
    image = torch.randn(1, 3, 64, 96)
    views = look(model, lambda: model(image), (10, 10), ('features',))['features']
    assert [(v.name, v.stride) for v in views] == [('stage2', 8), ('stage4', 32)]
    assert [tuple(v.maps.shape[1:]) for v in views] == [(8, 12), (2, 3)]


CONFIG = """
_base_ = 'mmdense::digits/{base}.py'
model = dict(
    backbone=dict(_delete_=True, type='mmdense.Timm', model_name='{name}', pretrained='w.pth'),
    {neck},
)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, base', [('test_convnext', 'upernet_paca_digits'), ('test_vit', 'mask_rcnn_paca_digits')]
)
def test_two_lines_of_a_config(name, base, place, run_tool):
    """A detector and a segmentor train from timm's weights, and the tools take them."""
    torch.save(timm.create_model(name).state_dict(), 'w.pth')
    channels = [info['num_chs'] for info in Timm(name).feature_info]
    neck = f'neck=dict(in_channels={channels})'
    if base.startswith('upernet'):
        neck = f'decode_head=dict(in_channels={channels})'
    (place / 'own.py').write_text(CONFIG.format(base=base, name=name, neck=neck))
    options = ['train_cfg.max_epochs=1', 'randomness.seed=0']
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.dataset.indices=2', f'{loader}.num_workers=0']
        options.append(f'{loader}.persistent_workers=False')
    code, out, err = run_tool('train.py', 'own.py', '--cfg-options', *options)
    assert code == 0, err[-3000:]
    assert "from 'w.pth'" in out + err
    (place / 'w.pth').unlink()  # a trained model has all that it needs
    checkpoint = 'work_dirs/own/epoch_1.pth'
    picture = next(iter(sorted((place / 'data').rglob('*.png'))))
    code, out, err = run_tool('visualize.py', 'own.py', checkpoint, picture, '--out-dir', 'pages')
    assert code == 0 and 'features: 4 pages' in out, err
    code, out, err = run_tool('test.py', 'own.py', checkpoint, '--cfg-options', *options[2:])
    assert code == 0, err[-3000:]
    args = ('--shape', 64, 64, '--rounds', 1, '--warmup', 1, '--part', 'backbone')
    code, out, err = run_tool('benchmark.py', 'own.py', *args)
    assert code == 0 and 'own' in out, err
    check_fails(run_tool('train.py', 'own.py', '--dry-run'), "pretrained='w.pth' is no file")
    assert measure(Config.fromfile('own.py'), (64, 96)).parts['backbone'].macs > 0

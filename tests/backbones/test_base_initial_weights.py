"""What the weights are before training."""

import math

import pytest
import torch
from helpers import TINY, build
from mmcv.cnn.bricks import LayerScale
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdense.backbones.msf import GroupedLinear


def check_spread(weight: Tensor, std: float, name: str) -> None:
    """The numbers spread as asked for, to five standard errors, around zero."""
    error = 5 / math.sqrt(2 * weight.numel())
    assert weight.numel() < 20 or abs(weight.std().item() / std - 1) < error, name
    assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel()), name


@pytest.mark.parametrize('name', TINY)
def test_linear_layers_and_norms(name):
    model = build(name)
    for key, module in model.named_modules():
        if isinstance(module, nn.Linear | GroupedLinear):
            check_spread(module.weight, 0.02, key)
            assert module.bias is None or not module.bias.any(), key
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | _BatchNorm):
            assert (module.weight == 1).all() and not module.bias.any(), key


@pytest.mark.parametrize('name', [name for name in TINY if name[:3] in ('PaC', 'FCV')])
def test_convolutions_spread_by_what_they_feed(name):
    """std sqrt(2 / fan_out), the fan-out being that of one group; no biases."""
    convs = {k: m for k, m in build(name).named_modules() if isinstance(m, nn.Conv2d)}
    assert convs
    for key, conv in convs.items():
        height, width = conv.kernel_size
        fan_out = height * width * conv.out_channels / conv.groups
        check_spread(conv.weight, math.sqrt(2 / fan_out), key)
        assert conv.bias is None or not conv.bias.any(), key


def test_fan_out_and_not_fan_in():
    """Of a layer large enough to tell 4 from 256 and 16, on a hair."""
    model = build('PaCaViT')
    for groups, std in ((1, math.sqrt(2 / (9 * 64))), (4, math.sqrt(2 / (9 * 16)))):
        conv = nn.Conv2d(256, 64, 3, groups=groups)
        model.init_layer(conv)
        assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
        assert not conv.bias.any()


def test_groupmixformer_keeps_the_convolutions_of_pytorch():
    """Uniform in +-1 / sqrt(fan_in), biases too."""
    model = build('GroupMixFormer')
    convs = {k: m for k, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for key, conv in convs.items():
        bound = 1 / math.sqrt(conv.weight[0].numel())
        assert conv.weight.abs().max() <= bound, key
        check_spread(conv.weight, bound / math.sqrt(3), key)
        assert conv.bias is None or (conv.bias != 0).all(), key


@pytest.mark.parametrize(
    'name, option, value',
    [
        ('PaCaViT', 0.25, 0.25),
        ('PaCaViT', None, None),
        ('FCViT', 0.25, 0.25),
        ('FCViT', None, None),
        ('FCViT', 'default', 1e-5),  # the paper's, for ImageNet
        ('PaCaViT', 'default', None),
    ],
)
def test_layer_scale(name, option, value):
    cfg = {k: v for k, v in TINY[name].items() if k != 'layer_scale'}
    cfg |= {} if option == 'default' else dict(layer_scale=option)
    scales = [m for m in MODELS.build(cfg).modules() if isinstance(m, LayerScale)]
    blocks = sum(cfg['arch']['depths'])
    assert len(scales) == (0 if value is None else 2 * blocks)
    assert all((scale.weight == value).all() for scale in scales)


def test_tables_and_context():
    model = build('PaCaViT-options')
    tables = [stage.pos_embed for stage in model.stages]
    tables += [m.cluster_pos_embed for m in model.modules() if hasattr(m, 'cluster_pos_embed')]
    tables = [table for table in tables if table is not None]
    assert len(tables) == 4 + 6
    for table in tables:
        check_spread(table, 0.02, str(table.shape))
    for key, value in build('FCViT').state_dict().items():
        if 'context.head_' in key:
            assert (value == float(key.endswith('weight'))).all()


def test_other_initializers_replace_ours():
    """Linear layers as asked for, convolutions as PyTorch makes them."""
    init_cfg = dict(type='TruncNormal', layer='Linear', std=0.5, bias=0.125)
    model = build('PaCaViT', init_cfg=init_cfg)
    for key, module in model.named_modules():
        if isinstance(module, nn.Linear):
            check_spread(module.weight, 0.5, key)
            assert module.bias is None or (module.bias == 0.125).all(), key
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound and module.bias.any(), key


@pytest.mark.parametrize('order', [1, -1])
def test_a_pretrained_file_comes_last_in_any_order(order, tmp_path):
    source = build('MSFViT')
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'source.pth')
    init_cfg = [
        dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth')),
        dict(type='Constant', layer='Linear', val=3),
    ][::order]
    model = build('MSFViT', init_cfg=init_cfg)
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_once_is_enough():
    model = build('FCViT')
    model.stages[0].downsample[0].bias.data.fill_(7)
    model.init_weights()
    assert (model.stages[0].downsample[0].bias == 7).all()

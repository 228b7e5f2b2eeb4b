"""What timm's users may ask of a model, one by one."""

import pytest
import timm
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config

import mmdense.timm_models as timm_models
from mmdense.files import config_root
from mmdense.timm_models import TimmClassifier, TimmFeatures, get_backbone


def rates(model: torch.nn.Module) -> list[float]:
    return [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]


@pytest.mark.parametrize('features_only', [False, True])
def test_stochastic_depth(features_only):
    """From 0 in the first block to the rate in the last; by default the recipe's."""
    model = timm.create_model('fcvit_tiny', drop_path_rate=0.24, features_only=features_only)
    assert rates(model)[0] == 0 and rates(model)[-1] == pytest.approx(0.24)
    assert rates(model) == pytest.approx(torch.linspace(0, 0.24, 13).tolist())
    recipe = Config.fromfile(config_root() / 'fcvit' / 'fcvit_tiny_in1k.py').model.backbone
    model = timm.create_model('fcvit_tiny', features_only=features_only)
    assert rates(model)[-1] == pytest.approx(recipe.get('drop_path_rate', 0.1))
    none = timm.create_model('fcvit_tiny', drop_path_rate=0.0, features_only=features_only)
    assert not any(rates(none))


def test_recipes_of_larger_models_drop_more():
    """Given none, the config's; given one, even 0, that."""
    recipe = Config.fromfile(config_root() / 'paca' / 'paca_b_in1k.py').model.backbone
    assert get_backbone('paca_base', 3, None, {}) == recipe.to_dict() | dict(in_channels=3)
    assert get_backbone('paca_base', 3, 0.0, {})['drop_path_rate'] == 0.0
    assert get_backbone('paca_base', 5, 0.4, dict(clusters=9)) == recipe.to_dict() | dict(
        in_channels=5, drop_path_rate=0.4, clusters=9
    )


def test_gradient_checkpointing_on_and_off():
    model = timm.create_model('fcvit_tiny')
    assert model.backbone.with_cp is False
    for enable in (True, False, True):
        model.set_grad_checkpointing(enable)
        assert model.backbone.with_cp is enable
    model.set_grad_checkpointing(False)
    model.set_grad_checkpointing()
    assert model.backbone.with_cp is True


def test_channels_of_the_image():
    for features_only in (False, True):
        model = timm.create_model('fcvit_tiny', in_chans=5, features_only=features_only)
        assert model.backbone.stages[0].downsample[0].in_channels == 5
    maps = model.eval()(torch.zeros(1, 5, 32, 32))
    assert [m.shape[1] for m in maps] == [32, 64, 160, 320]


def test_dropout_before_the_classifier():
    """It zeroes features in training, and only there."""
    torch.manual_seed(0)
    model = timm.create_model('fcvit_tiny', drop_rate=0.5)
    seen = []
    model.head.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.randn(2, 320, 2, 2)
    model.forward_head(x)
    share = (seen[0] == 0).float().mean().item()
    assert 0.4 < share < 0.6
    model.eval().forward_head(x)
    assert (seen[1] != 0).all()
    assert timm.create_model('fcvit_tiny').head.drop.p == 0


def test_no_classes_give_features():
    model = timm.create_model('fcvit_tiny', num_classes=0).eval()
    assert model.num_classes == 0 and isinstance(model.get_classifier(), torch.nn.Identity)
    x = torch.randn(2, 320, 2, 3)
    assert torch.allclose(model.forward_head(x), x.mean(dim=(2, 3)), atol=1e-6)
    maximum = timm.create_model('fcvit_tiny', num_classes=0, global_pool='max').eval()
    assert torch.equal(maximum.forward_head(x), x.amax(dim=(2, 3)))


def test_features_take_what_timm_passes_to_a_classifier():
    model = timm.create_model(
        'fcvit_tiny', features_only=True, num_classes=7, global_pool='', drop_rate=0.1
    )
    assert model.feature_info.channels() == [32, 64, 160, 320]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert model.feature_info.module_name() == [f'stages.{i}' for i in range(4)]
    assert model.default_cfg['crop_pct'] == 0.9 and model.pretrained_cfg is model.default_cfg


@pytest.mark.parametrize('name', ['groupmixformer_miny', 'msf_small'])
def test_features_are_those_of_dense_use(name):
    """No norm of the classifier; MSF's maps are of the layers that dense configs use."""
    model = timm.create_model(name, features_only=True)
    assert model.backbone.norm is None
    wanted = (2, 5, 8, 11) if name == 'msf_small' else (0, 1, 2, 3)
    assert model.backbone.out_indices == tuple(model.feature_info.out_indices) == wanted


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match='wings'):
        timm.create_model('fcvit_tiny', wings=2)


def test_names_and_recipes():
    """All are registered, with their test crop, and none has weights of its own."""
    assert set(timm_models.VARIANTS) <= set(timm.list_models())
    crops = {'paca_small': 0.9, 'groupmixformer_large': 0.875, 'fcvit_b48': 0.95, 'msf_small': 1.0}
    for name, crop in crops.items():
        cfg = timm_models.default_cfgs[name].default
        assert (cfg.crop_pct, cfg.num_classes, cfg.input_size) == (crop, 1000, (3, 224, 224))
        assert cfg.classifier == 'head.fc' and not cfg.url and not cfg.hf_hub_id
    assert timm_models.create('fcvit_tiny', features_only=True).__class__ is TimmFeatures
    assert timm_models.create('fcvit_tiny').__class__ is TimmClassifier

"""timm's door leads to the same models."""

import pytest
import timm
import torch
from helpers import CONFIGS, build_in
from mmengine.registry import MODELS

from mmdense.errors import UserError
from mmdense.families import FAMILIES
from mmdense.serialization.conversion import convert, load_variant
from mmdense.serialization.loading import load_pretrained
from mmdense.timm_models import VARIANTS, default_cfgs

SMALLEST = [next(iter(family.variants)) for family in FAMILIES]


def build_classifier(name: str) -> torch.nn.Module:
    family, variant = VARIANTS[name]
    return build_in('mmpretrain', load_variant(family, variant.config).model)


def get_backbone(name: str) -> dict:
    family, variant = VARIANTS[name]
    return load_variant(family, variant.config).model.backbone.to_dict()


def test_every_published_variant_has_a_name():
    configs = {str(p.relative_to(CONFIGS)) for p in CONFIGS.glob('*/*_in1k.py')}
    named = {f'{family.name}/{variant.config}.py' for family, variant in VARIANTS.values()}
    assert named == {c for c in configs if not c.startswith('_')}
    assert set(VARIANTS) <= set(timm.list_models())


@pytest.mark.parametrize('name', VARIANTS)
def test_same_tensors_as_the_toolboxes_classifier(name):
    with torch.device('meta'):
        model = timm.create_model(name)
        own = build_classifier(name)
    shapes = {k: v.shape for k, v in own.state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes
    assert model.default_cfg['classifier'] == 'head.fc'
    assert model.default_cfg['input_size'] == (3, 224, 224)


@pytest.mark.parametrize('name', SMALLEST)
def test_a_converted_checkpoint_gives_the_same_logits(name, tmp_path):
    torch.manual_seed(0)
    own = build_classifier(name).eval()
    torch.save(dict(state_dict=own.state_dict()), tmp_path / 'own.pth')
    model = timm.create_model(name, checkpoint_path=str(tmp_path / 'own.pth')).eval()
    again = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'own.pth'))
    ).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        want = own(x, mode='tensor')
        assert torch.equal(model(x), want) and torch.equal(again(x), want)
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        assert pooled.shape == (2, model.num_features)
        maps = timm.create_model(
            name,
            pretrained=True,
            features_only=True,
            pretrained_cfg_overlay=dict(file=str(tmp_path / 'own.pth')),
        ).eval()(x)
        dense = MODELS.build({**get_backbone(name), **VARIANTS[name][0].dense}).eval()
        load_pretrained(dense, str(tmp_path / 'own.pth'), prefix='backbone.')
        for a, b in zip(maps, dense(x), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize('name', SMALLEST)
def test_features_only(name):
    model = timm.create_model(name, features_only=True, out_indices=(1, -1)).eval()
    maps = model(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    strides = model.feature_info.reduction()
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in strides]


@pytest.mark.parametrize('name', SMALLEST)
def test_what_timm_lets_a_user_change(name):
    model = timm.create_model(name, num_classes=7, in_chans=1, drop_path_rate=0.3, drop_rate=0.2)
    blocks = [m for m in model.modules() if type(m).__name__ == 'DropPath']
    assert blocks[-1].drop_prob == pytest.approx(0.3)
    model.eval().set_grad_checkpointing()
    x = torch.randn(1, 1, 64, 64)
    assert model.backbone.with_cp and model(x).shape == (1, 7)
    model.reset_classifier(5)
    assert model.num_classes == 5 and model(x).shape == (1, 5)
    assert model.get_classifier() is model.head.fc
    model.reset_classifier(0)
    assert model(x).shape == (1, model.num_features)
    assert isinstance(model.get_classifier(), torch.nn.Identity)


def test_transforms_of_the_recipe():
    data = timm.data.resolve_model_data_config(timm.create_model('fcvit_b24'))
    assert (data['crop_pct'], data['interpolation']) == (0.95, 'bicubic')
    assert default_cfgs['groupmixformer_small'].default.crop_pct == 0.875


@pytest.mark.parametrize('features_only', [False, True])
def test_pretrained_asks_for_the_published_file(tmp_path, monkeypatch, features_only):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(UserError, match=r'IMNET_224_pacavit_small_p2cconv_100_0.pth. is not in'):
        timm.create_model('paca_small', pretrained=True, features_only=features_only)
    with pytest.raises(UserError, match='its authors published no weights of it'):
        timm.create_model('msf_small', pretrained=True, features_only=features_only)


def test_a_published_file_converts_for_timm_too(smallest):
    ref, state = smallest('paca')
    model = timm.create_model('paca_tiny').eval()
    model.load_state_dict(convert(state).state_dict, strict=True)
    spec = ref.manifest['classification']
    with torch.inference_mode():
        logits = model(ref.image(spec['input'], torch.float32))
    want = torch.from_numpy(ref.vectors['logits'])
    torch.testing.assert_close(logits, want, rtol=0, atol=5e-5)

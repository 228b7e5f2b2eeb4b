"""A test of the copy of the package that holds the toy family: everything finds it."""

from pathlib import Path

import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import mmdense
from mmdense.engine.building import build_model, load_model
from mmdense.families import FAMILIES, find_family
from mmdense.files import config_root
from mmdense.inference.flops import measure
from mmdense.inference.model_zoo import measure_family, metafiles, pages
from mmdense.inference.visualize import list_kinds, look
from mmdense.serialization.conversion import convert, identify, restore


def test_everything_finds_it(tmp_path):
    assert Path(mmdense.__file__).parent == Path(__file__).parents[3], mmdense.__file__
    (family,) = [family for family in FAMILIES if family.name == 'toy']

    # registry, in any toolbox's scope
    backbone = MODELS.build(dict(type='mmdense.Toy'))
    assert find_family(backbone) is family

    # timm
    assert 'toy_nano' in timm.list_models('toy*')
    pyramid = timm.create_model('toy_nano', features_only=True, out_indices=(1, 3))
    assert pyramid.feature_info.channels() == [16, 32] and pyramid.feature_info.reduction() == [
        8,
        32,
    ]

    # conversion both ways, and strict loading
    cfg = Config.fromfile(config_root() / 'toy' / 'toy_n_in1k.py')
    model = build_model(cfg)
    published = restore(model.state_dict(), family)
    assert 'body2.1.conv.weight' in published and 'classifier.bias' in published
    conversion = convert(published)
    assert conversion.config == 'configs/toy/toy_n_in1k.py'
    assert identify(model.backbone.state_dict()) == 'toy_n_in1k'
    path = str(tmp_path / 'toy.pth')
    torch.save(dict(state_dict=conversion.state_dict), path)
    again = load_model(cfg, path)
    classifier = timm.create_model('toy_nano', checkpoint_path=path).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        logits = model(image, mode='tensor')
        assert torch.equal(logits, again(image, mode='tensor'))
        torch.testing.assert_close(logits, classifier(image))

    # views
    assert 'residuals' in list_kinds()
    views = look(model, lambda: model.backbone(image), (0, 0), ('residuals', 'features'))
    assert [view.name for view in views['residuals']][:2] == ['stage1_block1', 'stage2_block1']
    assert len(views['features']) == 4

    # FLOPs, counted as its authors do
    counted = measure(cfg, (64, 64))
    assert counted.original == (counted.params / 1e3, 2 * counted.macs / 1e9)

    # zoo
    measure_family(next(path for path in metafiles() if path.parent.name == 'toy'))
    written = {path.name + path.parent.name: text for path, text in pages()}
    assert '[toy_n_in1k](toy_n_in1k.py)' in written['README.mdtoy']
    assert f'{counted.params / 1e6:.2f} M' in written['README.mdtoy']
    assert 'toy_n_in1k' in written['model_zoo.mddocs']

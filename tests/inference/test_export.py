"""An exported file is the model, at sizes that it was not traced with."""

import pytest
import torch
from helpers import PLAINEST, TINY, build, make_shallow
from mmengine.config import Config
from small_models import write_small
from torch import nn

from mmdense.engine import building
from mmdense.inference.export import (
    CHECKED,
    FORMATS,
    AdaptivePool,
    Exported,
    find_error,
    free_sizes,
    make_image,
)


@pytest.mark.parametrize(
    'name, suffix',
    [
        *(pytest.param(name, '.onnx', marks=pytest.mark.slow) for name in TINY),
        *((name, '.pt2') for name in PLAINEST),
    ],
)
def test_backbones(name, suffix, tmp_path):
    model = nn.Module()
    model.backbone = build(name, **make_shallow(name))
    module = Exported(model, 'backbone').eval()
    write, read = FORMATS[suffix]
    path = tmp_path / f'backbone{suffix}'
    write(module, 3, path, {})
    run = read(path)
    for size in CHECKED:
        assert find_error(module, run, make_image(3, *size)) <= 1e-5


def test_segmentor_is_the_whole_prediction(tmp_path):
    """The exported logits' maxima are what mmseg's own inference predicts."""
    config, checkpoint = write_small('upernet_paca_t_160k', tmp_path)
    cfg = Config.fromfile(config)
    model = building.load_model(cfg, checkpoint)
    image = make_image(3, 1, 96, 128)
    with torch.no_grad():
        sample = model.predict(image)[0]
        labels = Exported(model, 'model').eval()(image).argmax(dim=1)
    assert (labels == sample.pred_sem_seg.data).float().mean() > 0.999


def test_a_head_of_which_nothing_is_known():
    model = nn.Module()
    model.decode_head = nn.Identity()
    with pytest.raises(ValueError, match='Identity is no head'):
        Exported(model, 'model')


@pytest.mark.parametrize('size', [(7, 9), (12, 12), (1, 2), (5, 31)], ids=str)
@pytest.mark.parametrize('bins', [(1, 1), (2, 2), (3, 6), (6, 3)], ids=str)
def test_adaptive_pool(size, bins):
    x = torch.randn(2, 3, *size)
    assert AdaptivePool(bins)(x).allclose(nn.AdaptiveAvgPool2d(bins)(x), atol=1e-6)


def test_global_pools_stay():
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.AdaptiveAvgPool2d(3)))
    module = free_sizes(own)
    assert isinstance(own[1][0], nn.AdaptiveAvgPool2d)  # the model itself is as it was
    assert isinstance(module[0], nn.AdaptiveAvgPool2d) and isinstance(module[1][0], AdaptivePool)

"""Mask2Former re-stated is Mask2Former: MMSegmentation's head, and its way to predict."""

import pytest
import torch
from helpers import SMALLEST_PACA, load_config
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.structures import SegDataSample
from torch import nn

from mmdense.engine.building import build_model
from mmdense.inference.export import Prepared, find_padding, make_exported, make_picture
from mmdense.inference.export_mask2former import classify_pixels


def make_model(**head: object) -> nn.Module:
    """A small Mask2Former with random weights, none of them at its initial zero."""
    cfg = load_config('paca/mask2former_paca_s_160k')
    changes = dict(in_channels=[8] * 4, num_queries=7, **head)
    cfg.model.backbone.update(arch=SMALLEST_PACA, init_cfg=None)
    cfg.merge_from_dict(dict(model=dict(decode_head=changes)))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for parameter in model.decode_head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


FEW = dict(pixel_decoder=dict(encoder=dict(num_layers=2)), transformer_decoder=dict(num_layers=4))


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return make_model(**FEW)


@pytest.mark.parametrize('size', [(1, 64, 96), (2, 96, 64), (3, 32, 160)], ids=str)
def test_predicts_what_the_head_does(size, model, monkeypatch):
    batch, *sides = size
    image, shares = torch.randn(batch, 3, *sides), []
    forward_head = Mask2FormerHead._forward_head

    def keep(*args: object) -> tuple[torch.Tensor, ...]:
        found = forward_head(*args)
        shares.append(float(found[2].float().mean()))
        return found

    monkeypatch.setattr(Mask2FormerHead, '_forward_head', keep)
    with torch.no_grad():
        maps = model.extract_feat(image)
        expected = model.decode_head.predict(maps, [dict(img_shape=tuple(sides))] * batch, None)
        found = classify_pixels(model.decode_head, maps, tuple(sides))
    assert found.shape == expected.shape == (batch, 150, *sides)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.std(dim=(2, 3)).max() > 1e-3
    assert any(0.05 < share < 0.95 for share in shares)  # masks that hide some of a map


@pytest.mark.parametrize('size', [(97, 135), (64, 70)], ids=str)
def test_pads_and_cuts_as_the_model(size, model):
    """Of a picture whose sides are no multiples of 32 too, what the model itself predicts."""
    assert find_padding(model.data_preprocessor)[0] == 32
    module = make_exported(model, 'model', is_picture=True)
    assert isinstance(module, Prepared)
    picture = make_picture(*size)
    metas = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    bgr = picture.flip(2).permute(2, 0, 1)
    data = dict(inputs=[bgr], data_samples=[SegDataSample(metainfo=metas)])
    with torch.no_grad():
        (sample,) = model.test_step(data)
        scores = module(picture)
    assert scores.shape == (1, 150, *size)
    assert (scores[0].argmax(0) == sample.pred_sem_seg.data[0]).float().mean() > 0.999
